// SPDX-License-Identifier: Apache-2.0
#include "tune/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/human.h"
#include "base/system.h"
#include "engine/limits.h"
#include "tune/input_factors.h"

namespace hone::tune {
namespace {

// Of the first examples, whose inputs give low-rank factors: some times the largest rank.
constexpr std::int64_t kFactorTokens = 2048;

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
  visit("view", o.method.view);
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
  visit("perturb", o.perturb);
  visit("factor", o.factor);
  visit("probe", o.probe);
  visit("directions", o.directions);
  visit("epsilon", o.epsilon);
  visit("noise", o.noise);
  visit("shaping", o.shaping);
  visit("derivative_clip", o.derivative_clip);
  visit("layers", o.layers);
  visit("reward", o.reward);
  visit("rank_program", o.rank);
  visit("answer_tokens", o.answer_tokens);
  visit("program_seconds", o.program_seconds);
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

MethodOptions JobOptions::trained_method() const {
  MethodOptions options = method;
  if (!forward_only()) return options;
  options.method = perturb == "low-rank" ? "lora" : perturb;
  options.fixed_a = perturb == "low-rank";
  return options;
}

Result<feedback::ForwardOptions> JobOptions::forward_options() const {
  feedback::ForwardOptions options;
  const auto probed = feedback::probe_named(probe);
  if (!probed) return probed.error();
  options.probe = *probed;
  const auto noised = feedback::noise_named(noise);
  if (!noised) return noised.error();
  options.noise = *noised;
  const auto shaped = optim::shaping_named(shaping);
  if (!shaped) return shaped.error();
  options.shaping = *shaped;
  options.directions = directions;
  options.epsilon = epsilon;
  options.clip = derivative_clip;
  options.seed = seed;
  if (layers == "random") {
    options.layers = feedback::kRandomLayers;
  } else if (layers != "all") {
    const char* end = layers.data() + layers.size();
    const auto read = std::from_chars(layers.data(), end, options.layers);
    if (read.ec != std::errc() || read.ptr != end || options.layers < 1) {
      return Error{ErrorCode::kInvalidArgument,
                   "these are no layers",
                   "--layers",
                   layers,
                   "all, random, or how many of the last",
                   ""};
    }
  }
  return options;
}

double default_learning_rate(const std::string& method, const std::string& optimizer) {
  // Adapters take ten times the rate of full tuning (Schulman et al. 2025, "LoRA without regret");
  // Lion a third to a tenth of AdamW's (Chen et al. 2023, section 5); Muon's is of the matrix norm.
  // A scale's factor is relative, and few numbers carry all of a change.
  const double base = trains_adapter(method) || method == "scale" ? 1e-3 : 1e-4;
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
  const std::int64_t most = std::min(options_.length, session_->config().context);
  const DataOptions data{most, options_.everything, 0.01};
  auto loaded = load_dataset(options_.data, *tokenizer_, chat(), data);
  if (!loaded) return loaded.error();
  data_ = *std::move(loaded);
  if (!options_.validation.empty()) {
    auto validation = load_dataset(options_.validation, *tokenizer_, chat(), data);
    if (!validation) return validation.error();
    held_out_ = std::move(validation->examples);
  }
  auto trained = prepare(*session_, options_.trained_method());
  if (!trained) return trained.error();
  trained_ = *std::move(trained);

  if (trained_.options.fixed_a && options_.factor == "inputs") {
    std::vector<feedback::TokenBatch> some;
    std::int64_t tokens = 0;
    for (const Example& example : data_.examples) {
      if (tokens > kFactorTokens) break;
      some.emplace_back().add(example.tokens, example.learn);
      tokens += static_cast<std::int64_t>(example.tokens.size());
    }
    HONE_RETURN_IF_ERROR(set_input_factors(*session_, trained_, some));
  }

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
  trainer_options_.rounding = options_.rounding == "bf16"   ? "bf16"
                              : options_.rounding == "int8" ? "quantize_training"
                                                            : "";
  trainer_options_.compile = session_->options().compile;
  trainer_options_.machine = engine::machine_of(engine::measure_limits(session_->pool(), 0.05));
  if (options_.forward_only()) {
    const auto forward = options_.forward_options();
    if (!forward) return forward.error();
    trainer_options_.forward = *forward;
    if (!options_.reward.empty() || !options_.rank.empty()) HONE_RETURN_IF_ERROR(make_judge());
  } else if (!options_.reward.empty() || !options_.rank.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "rewards and rankings have no gradient to go back through",
                 "--method",
                 options_.method.method,
                 "--method zo",
                 ""};
  }
  return fit_memory();
}

// The same file as questions: an example's record says which of them it is.
Status Job::make_judge() {
  if (!trains_adapter(trained_.options.method)) {
    return Error{ErrorCode::kUnsupported,
                 "only adapters are judged by their answers",
                 "--perturb",
                 options_.perturb,
                 "low-rank, lora or pooled",
                 ""};
  }
  const auto text = read_file(options_.data);
  if (!text) return text.error();
  const auto questions = read_eval_examples(*text, options_.data);
  if (!questions) return questions.error().in("--reward and --rank");
  std::vector<EvalExample> asked;
  for (const Example& example : data_.examples) {
    const auto line = static_cast<std::int64_t>(example.record);
    const auto found = std::ranges::find(*questions, line, &EvalExample::line);
    if (found == questions->end()) {
      return Error{ErrorCode::kCorrupt,
                   "this record asks nothing that can be judged",
                   fmt::format("{}, line {}", options_.data, line),
                   "",
                   R"({"question": …, "answer": …})",
                   ""};
    }
    asked.push_back(*found);
  }
  judge_ = std::make_unique<Judge>(*session_, *tokenizer_, trained_, std::move(asked),
                                   JudgeOptions{options_.reward, options_.rank,
                                                options_.answer_tokens, options_.program_seconds});
  if (options_.rank.empty()) {
    trainer_options_.objective = [this](std::span<const std::size_t> which) {
      return judge_->objective(which);
    };
    return {};
  }
  trainer_options_.ranking =
      TrainerOptions::Ranking{[this](std::span<const std::size_t> which) -> Status {
                                auto said = judge_->answers(which);
                                if (!said) return said.error();
                                candidates_.push_back(*std::move(said));
                                return {};
                              },
                              [this] {
                                auto order = judge_->order(candidates_);
                                candidates_.clear();
                                return order;
                              }};
  return {};
}

Status Job::make_trainer(std::int64_t kept_bytes, std::int64_t micro_tokens) {
  trainer_options_.kept_bytes = kept_bytes;
  trainer_options_.micro_tokens = micro_tokens;
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
// part; then runs become smaller. A changed split changes only the order of sums.
Status Job::fit_memory() {
  std::int64_t longest = 1;
  for (const Example& example : data_.examples) {
    longest = std::max(longest, static_cast<std::int64_t>(example.tokens.size()));
  }
  const MemoryInfo machine = memory_info();
  limit_ = options_.memory > 0 ? options_.memory : machine.available / 5 * 4;
  std::int64_t micro = std::max<std::int64_t>(longest, 2048);
  std::int64_t total = 0;
  for (;;) {
    std::int64_t kept = INT64_MAX;
    for (int attempt = 0; attempt < 4; ++attempt) {
      HONE_RETURN_IF_ERROR(make_trainer(kept, micro));
      // The weights are in memory by now, as are the trained tensors and the optimizer's state.
      resident_ = resident_memory().current;
      total = planned_bytes();
      if (limit_ <= 0 || total <= limit_) return {};
      const std::int64_t next = plan_.kept.kept - (total - limit_) - (1 << 20);
      if (next <= 0 || next >= kept) break;
      kept = next;
    }
    if (micro <= longest) break;
    micro = std::max(longest, micro / 2);
  }
  return Error{
      ErrorCode::kOutOfMemory,
      "tuning does not fit into the memory that it may take",
      "",
      fmt::format("{} with everything made again that can be: {} of activations, {} of work space, "
                  "{} of trained tensors and {} of optimizer state",
                  human_bytes(total), human_bytes(memory_.activations), human_bytes(memory_.work),
                  human_bytes(memory_.trained), human_bytes(memory_.optimizer)),
      fmt::format("at most {}", human_bytes(limit_)),
      fmt::format("lower --length (the longest example has {} tokens) or --rank, or raise --memory",
                  longest)};
}

void Job::measure_resident() { resident_ = resident_memory().current; }

Result<double> Job::held_out_loss() {
  if (held_out_.empty()) return 0.0;
  return trainer_->evaluate(held_out_);
}

}  // namespace hone::tune
