// SPDX-License-Identifier: Apache-2.0
#include "tune/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/system.h"
#include "engine/limits.h"

namespace hone::tune {
namespace {

// One table for both directions of JSON.
template <typename Options, typename Visit>
void each_option(Options& o, Visit visit) {
  visit("model", o.model);
  visit("data", o.data);
  visit("validation", o.validation);
  visit("method", o.method.method);
  visit("modules", o.method.modules);
  visit("rank", o.method.rank);
  visit("alpha", o.method.alpha);
  visit("dropout", o.method.dropout);
  visit("virtual_tokens", o.method.virtual_tokens);
  visit("prompt_text", o.method.prompt_text);
  visit("optimizer", o.optimizer);
  visit("settings", o.settings);
  visit("learning_rate", o.learning_rate);
  visit("schedule", o.schedule);
  visit("warmup", o.warmup);
  visit("weight_decay", o.weight_decay);
  visit("clip", o.clip);
  visit("batch", o.batch);
  visit("epochs", o.epochs);
  visit("steps", o.steps);
  visit("length", o.length);
  visit("everything", o.everything);
  visit("seed", o.seed);
  visit("memory", o.memory);
  visit("threads", o.threads);
  visit("arithmetic", o.arithmetic);
  visit("rounding", o.rounding);
  visit("update_inside", o.update_inside);
  visit("offload", o.offload);
}

}  // namespace

std::string JobOptions::json() const {
  nlohmann::ordered_json out;
  each_option(*this, [&](const char* name, const auto& value) { out[name] = value; });
  return out.dump();
}

Result<JobOptions> JobOptions::of_json(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  JobOptions options;
  std::string wrong;
  if (!json.is_object()) wrong = "no JSON object";
  each_option(options, [&](const char* name, auto& value) {
    using T = std::remove_reference_t<decltype(value)>;
    if (!wrong.empty() || !json.contains(name)) return;
    const auto& found = json.at(name);
    const bool fits = std::is_same_v<T, std::string> ? found.is_string()
                      : std::is_same_v<T, bool>      ? found.is_boolean()
                                                     : found.is_number();
    if (!fits) {
      wrong = name;
      return;
    }
    value = found.template get<T>();
  });
  if (!wrong.empty()) {
    return Error{ErrorCode::kCorrupt,
                 "the arguments of a run cannot be read",
                 "",
                 wrong,
                 "a JSON object of tuning options",
                 ""};
  }
  return options;
}

std::string rounding_pass(std::string_view rounding) {
  if (rounding == "int8") return "quantize_training";
  return rounding == "bf16" ? "bf16" : "";
}

double default_learning_rate(const std::string& method, const std::string& optimizer) {
  // Adapters take ten times the rate of full tuning (Schulman et al. 2025, "LoRA without regret");
  // Lion a third to a tenth of AdamW's (Chen et al. 2023, section 5); Muon's is of the matrix norm.
  // A soft prompt's few numbers take more still.
  const double base = method == "prompt" ? 1e-2 : trains_adapter(method) ? 1e-3 : 1e-4;
  if (optimizer.starts_with("lion")) return base / 5;
  if (optimizer == "sgd") return base * 100;
  return base;
}

Result<std::unique_ptr<Job>> Job::open(const JobOptions& options) {
  std::unique_ptr<Job> job(new Job(options));
  const Status status = job->load();
  if (!status.ok()) return status.error();
  return job;
}

Status Job::load() {
  engine::SessionOptions how;
  how.threads = static_cast<int>(options_.threads);
  how.context = 0;  // the cache serves answers only; pages that nobody touches cost nothing
  how.compile.arithmetic =
      options_.arithmetic == "float" ? engine::Arithmetic::kFloat : engine::Arithmetic::kInteger;
  auto session = engine::Session::open(options_.model, how);
  if (!session) return session.error();
  session_ = *std::move(session);
  auto vocabulary = session_->source().vocabulary();
  if (!vocabulary) return vocabulary.error();
  auto tokenizer = formats::Tokenizer::create(*std::move(vocabulary));
  if (!tokenizer) return tokenizer.error();
  tokenizer_.emplace(*std::move(tokenizer));
  if (!tokenizer_->vocabulary().chat_template.empty()) {
    auto chat = formats::ChatTemplate::compile(tokenizer_->vocabulary().chat_template);
    if (!chat) return chat.error().in("the model's chat template");
    chat_.emplace(*std::move(chat));
  }
  const std::int64_t in_front =
      options_.method.method == "prompt" ? options_.method.virtual_tokens : 0;
  const std::int64_t most =
      std::min(options_.length, std::max<std::int64_t>(2, session_->config().context - in_front));
  const DataOptions data{most, options_.everything, 0.01};
  auto loaded = load_dataset(options_.data, *tokenizer_, chat(), data);
  if (!loaded) return loaded.error();
  data_ = *std::move(loaded);
  if (!options_.validation.empty()) {
    auto validation = load_dataset(options_.validation, *tokenizer_, chat(), data);
    if (!validation) return validation.error();
    held_out_ = std::move(validation->examples);
  }
  auto trained = prepare(*session_, options_.method);
  if (!trained) return trained.error();
  trained_ = *std::move(trained);

  auto rule = optim::rule_named(options_.optimizer);
  if (!rule) return rule.error().in("--optimizer");
  auto settings = optim::Settings::parse(**rule, options_.settings);
  if (!settings) return settings.error().in("--set");
  auto kind = optim::schedule_named(options_.schedule);
  if (!kind) return kind.error().in("--schedule");
  options_.batch = std::min(options_.batch, static_cast<std::int64_t>(data_.examples.size()));
  const std::int64_t of_epoch =
      (static_cast<std::int64_t>(data_.examples.size()) + options_.batch - 1) /
      std::max<std::int64_t>(1, options_.batch);
  steps_ = options_.steps > 0
               ? options_.steps
               : std::max<std::int64_t>(
                     1, std::llround(options_.epochs * static_cast<double>(of_epoch)));
  if (options_.learning_rate <= 0) {
    options_.learning_rate = default_learning_rate(options_.method.method, options_.optimizer);
  }
  trainer_options_.rule = *rule;
  trainer_options_.settings = *settings;
  trainer_options_.schedule = {*kind,  options_.learning_rate,
                               steps_, std::llround(options_.warmup * static_cast<double>(steps_)),
                               0,      0.0};
  HONE_RETURN_IF_ERROR(optim::check_schedule(trainer_options_.schedule));
  trainer_options_.weight_decay = options_.weight_decay;
  trainer_options_.clip = options_.clip;
  trainer_options_.batch = options_.batch;
  trainer_options_.seed = options_.seed;
  trainer_options_.update_inside = options_.update_inside;
  trainer_options_.rounding = rounding_pass(options_.rounding);
  trainer_options_.compile = session_->options().compile;
  trainer_options_.machine = engine::machine_of(engine::measure_limits(session_->pool(), 0.05));
  return fit_memory();
}

Status Job::make_trainer(std::int64_t kept_bytes, std::int64_t micro_tokens) {
  trainer_options_.kept_bytes = kept_bytes;
  trainer_options_.micro_tokens = micro_tokens;
  trainer_.reset();
  auto trainer = Trainer::create(*session_, trained_, data_.examples, trainer_options_);
  if (!trainer) return trainer.error();
  trainer_ = *std::move(trainer);
  auto plan = trainer_->plan();
  if (!plan) return plan.error();
  plan_ = *plan;
  auto memory = trainer_->memory();
  if (!memory) return memory.error();
  memory_ = *memory;
  return {};
}

// First all activations of 2,048 tokens are kept; what does not fit is made again in the backward
// part; then runs become smaller; at last the optimizer's state goes to a file. A changed split
// changes only the order of sums.
Status Job::fit_memory() {
  std::int64_t longest = 1;
  for (const Example& example : data_.examples) {
    longest = std::max(longest, static_cast<std::int64_t>(example.tokens.size()));
  }
  longest += trained_.virtual_tokens;
  const MemoryInfo machine = memory_info();
  limit_ = options_.memory > 0 ? options_.memory : machine.available / 5 * 4;
  if (options_.offload && !options_.scratch.empty()) {
    HONE_RETURN_IF_ERROR(make_scratch());
    trainer_options_.offload = options_.scratch;
  }
  auto fit = fits(longest);
  if (!fit) return fit.error();
  std::string why_not;
  if (!*fit && trainer_options_.offload.empty() && memory_.optimizer > 0) {
    const Status scratch = make_scratch();
    if (scratch.ok()) {
      trainer_options_.offload = options_.scratch;
      fit = fits(longest);
    }
    if (!scratch.ok() || !fit) {
      why_not = scratch.ok() ? fit.error().what : scratch.error().what;
      trainer_options_.offload.clear();
      fit = false;
    }
  }
  if (*fit) return {};
  return Error{
      ErrorCode::kOutOfMemory,
      "tuning does not fit into the memory that it may take",
      "",
      fmt::format("{} with everything made again that can be: {} of activations, {} of work space, "
                  "{} of trained tensors, {} of gradients and {} of optimizer state{}",
                  human_bytes(planned_bytes()), human_bytes(memory_.activations),
                  human_bytes(memory_.work), human_bytes(memory_.trained),
                  human_bytes(memory_.gradients), human_bytes(memory_.optimizer),
                  why_not.empty() ? "" : ", which cannot lie in a file: " + why_not),
      fmt::format("at most {}", human_bytes(limit_)),
      fmt::format("lower --length (the longest example has {} tokens) or --rank, or raise --memory",
                  longest)};
}

Status Job::make_scratch() {
  std::error_code failed;
  if (!options_.scratch.empty()) std::filesystem::create_directories(options_.scratch, failed);
  if (!options_.scratch.empty() && !failed) return {};
  return Error{ErrorCode::kIo,
               "there is no folder for the optimizer's state",
               options_.scratch,
               failed ? failed.message() : "",
               "a folder that can be written",
               ""};
}

// The first way of running that fits, with the trainer made for it.
Result<bool> Job::fits(std::int64_t longest) {
  std::int64_t micro = std::max<std::int64_t>(longest, 2048);
  for (;;) {
    std::int64_t kept = INT64_MAX;
    for (int attempt = 0; attempt < 4; ++attempt) {
      const Status made = make_trainer(kept, micro);
      if (!made.ok()) return made.error();
      // The weights are in memory by now, as are the trained tensors and the optimizer's state.
      resident_ = resident_memory().current;
      const std::int64_t total = planned_bytes();
      if (limit_ <= 0 || total <= limit_) return true;
      const std::int64_t next = plan_.kept.kept - (total - limit_) - (1 << 20);
      if (next <= 0 || next >= kept) break;
      kept = next;
    }
    if (micro <= longest) return false;
    micro = std::max(longest, micro / 2);
  }
}

// A run also brings into memory what was not there when it was fitted (code, tables): where that
// was too much, it is fitted again.
Status Job::measure_step() {
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto seconds = trainer_->measure_step();
    if (!seconds) return seconds.error();
    step_seconds_ = *seconds;
    measure_resident();
    if (limit_ <= 0 || planned_bytes() <= limit_) break;
    HONE_RETURN_IF_ERROR(fit_memory());
  }
  return {};
}

void Job::measure_resident() { resident_ = resident_memory().current; }

Result<double> Job::held_out_loss() {
  if (held_out_.empty()) return 0.0;
  return trainer_->evaluate(held_out_);
}

}  // namespace hone::tune
