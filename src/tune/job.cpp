// SPDX-License-Identifier: Apache-2.0
#include "tune/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/checksum.h"
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
  visit("virtual_tokens", o.method.virtual_tokens);
  visit("prompt_text", o.method.prompt_text);
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
  visit("offload", o.offload);
  visit("perturb", o.perturb);
  visit("factor", o.factor);
  visit("probe", o.probe);
  visit("directions", o.directions);
  visit("epsilon", o.epsilon);
  visit("noise", o.noise);
  visit("shaping", o.shaping);
  visit("derivative_clip", o.derivative_clip);
  visit("trajectory", o.trajectory);
  visit("seed_momentum", o.seed_momentum);
  visit("line_search", o.line_search);
  visit("epsilon_target", o.epsilon_target);
  visit("backward_layers", o.backward_layers);
  visit("backward_rate", o.backward_rate);
  visit("layers", o.layers);
  visit("kept_layers", o.kept_layers);
  visit("reward", o.reward);
  visit("rank_program", o.rank);
  visit("answer_tokens", o.answer_tokens);
  visit("program_seconds", o.program_seconds);
}

// The number of the last layers that move; 0 of words.
std::int64_t layer_count(std::string_view layers) {
  std::int64_t count = 0;
  const char* end = layers.data() + layers.size();
  const auto read = std::from_chars(layers.data(), end, count);
  return read.ec == std::errc() && read.ptr == end && count > 0 ? count : 0;
}

std::uint64_t digest_of(std::string_view text) {
  return checksum64(std::as_bytes(std::span(text)));
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

// Adapters in the last layers learn as well, and what lies below runs once for all directions
// (docs/log.md, E3): a sixth of the layers unless they are named.
MethodOptions JobOptions::trained_method(std::int64_t model_layers) const {
  MethodOptions options = method;
  if (!forward_only()) return options;
  options.method = perturb == "low-rank" ? "lora" : perturb;
  options.fixed_a = perturb == "low-rank";
  options.tokens_stay = true;
  options.layers = layer_count(layers);
  if (layers == "auto") options.layers = std::max<std::int64_t>(2, model_layers / 6);
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
  options.epsilon_target = epsilon_target;
  options.clip = derivative_clip;
  options.seed = seed;
  // What is no adapter stands in all layers; those that do not move cost nothing.
  options.layers = layer_count(layers);
  if (options.layers == 0 && layers != "auto" && layers != "all" && layers != "random") {
    return Error{ErrorCode::kInvalidArgument,
                 "these are no layers",
                 "--layers",
                 layers,
                 "auto, all, random, or how many of the last",
                 ""};
  }
  if (layers == "random") options.layers = feedback::kRandomLayers;
  return options;
}

std::string rounding_pass(std::string_view rounding) {
  if (rounding == "int8") return "quantize_training";
  return rounding == "bf16" ? "bf16" : "";
}

double default_learning_rate(const std::string& method, const std::string& optimizer) {
  // Adapters take ten times the rate of full tuning (Schulman et al. 2025, "LoRA without regret");
  // Lion a third to a tenth of AdamW's (Chen et al. 2023, section 5); Muon's is of the matrix norm.
  // Forward passes: measured on SST-2 (docs/log.md); a rule that normalizes takes adapters' rates.
  if (method == "zo" && optimizer == "sgd") return 2e-3;
  // A soft prompt's few numbers take more still; a scale's factor is relative, and few numbers
  // carry all of a change.
  const bool adapts = trains_adapter(method) || method == "zo" || method == "scale";
  const double base = method == "prompt" ? 1e-2 : adapts ? 1e-3 : 1e-4;
  if (optimizer.starts_with("lion")) return base / 5;
  if (optimizer == "sgd") return base * 100;
  return base;
}

Result<std::unique_ptr<Job>> Job::open(const JobOptions& options, Workers* workers) {
  std::unique_ptr<Job> job(new Job(options, workers));
  const Status status = job->load();
  if (!status.ok()) return status.error();
  return job;
}

// A stream is packed once, into the cache, and not at every step. Where that does not go, steps are
// slower and nothing else.
Status Job::stream_packed(engine::SessionOptions how) {
  how.packed_folder = options_.packed_folder;
  if (how.packed_folder.empty() || session_->weights().stream() == nullptr) return {};
  for (bool again = true; again;) {
    auto session = engine::Session::open(options_.model, how);
    if (!session) return session.error();
    const bool first = session_->options().packed_folder.empty();
    session_ = *std::move(session);
    const auto kept = first ? session_->keep_packed() : Result<bool>(false);
    again = kept && *kept;
  }
  return {};
}

Status Job::load() {
  engine::SessionOptions how;
  how.stream = options_.stream;
  how.threads = static_cast<int>(options_.threads);
  how.context = 0;  // the cache serves answers only; pages that nobody touches cost nothing
  how.compile.arithmetic =
      options_.arithmetic == "float" ? engine::Arithmetic::kFloat : engine::Arithmetic::kInteger;
  auto session = engine::Session::open(options_.model, how);
  if (!session) return session.error();
  session_ = *std::move(session);
  HONE_RETURN_IF_ERROR(stream_packed(how));
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
  HONE_RETURN_IF_ERROR(prepare_trained());
  HONE_RETURN_IF_ERROR(choose_rule());
  HONE_RETURN_IF_ERROR(choose_feedback());
  return fit_memory();
}

Status Job::prepare_trained() {
  auto trained = prepare(*session_, options_.trained_method(session_->config().layers));
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
  return {};
}

Status Job::choose_rule() {
  if (options_.optimizer.empty()) {
    options_.optimizer = options_.forward_only() ? "sgd" : "adamw";
    if (options_.forward_only() && options_.settings.empty()) options_.settings = "momentum=0";
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
  // An estimate's length says little of the gradient's: its rate is chosen without a limit.
  if (options_.clip < 0) options_.clip = options_.forward_only() ? 0 : 1;
  trainer_options_.clip = options_.clip;
  trainer_options_.batch = options_.batch;
  trainer_options_.seed = options_.seed;
  trainer_options_.update_inside = options_.update_inside;
  trainer_options_.trajectory = options_.trajectory;
  trainer_options_.seed_momentum = options_.seed_momentum;
  trainer_options_.line_search = options_.line_search;
  trainer_options_.backward_layers = options_.backward_layers;
  // A gradient bears longer steps than an estimate, where the rule does not see its length.
  const double times = options_.optimizer == "sgd" ? 10 : 1;
  trainer_options_.backward_factor =
      options_.backward_rate > 0 ? options_.backward_rate / options_.learning_rate : times;
  trainer_options_.rounding = rounding_pass(options_.rounding);
  trainer_options_.compile = session_->options().compile;
  trainer_options_.machine = engine::machine_of(engine::measure_limits(session_->pool(), 0.05));
  return {};
}

// Gradients need nothing more.
Status Job::choose_feedback() {
  if (options_.trajectory > 0 && !(options_.forward_only() && options_.perturb == "prompt")) {
    return Error{ErrorCode::kInvalidArgument,
                 "only the rows of a soft prompt are followed",
                 "--trajectory",
                 fmt::format("--method {} --perturb {}", options_.method.method, options_.perturb),
                 "--method zo --perturb prompt",
                 ""};
  }
  const bool judged = !options_.reward.empty() || !options_.rank.empty();
  if (options_.backward_layers > 0 && (!options_.forward_only() || judged)) {
    return Error{ErrorCode::kInvalidArgument,
                 "a split needs forward passes below and a loss that has a gradient",
                 "--backward-layers",
                 options_.forward_only() ? "a reward or a ranking" : options_.method.method,
                 "--method zo, without --reward and --rank-by",
                 ""};
  }
  const bool probes = options_.probe != "tangent" || !options_.reward.empty();
  if (options_.epsilon_target > 0 && (!probes || !options_.rank.empty())) {
    return Error{ErrorCode::kInvalidArgument,
                 "there are no losses at a distance that could follow a target",
                 "--epsilon-target",
                 options_.rank.empty() ? "--probe tangent" : "--rank-by",
                 "--probe pair, --probe one-sided or --reward",
                 ""};
  }
  if (options_.forward_only()) {
    const auto forward = options_.forward_options();
    if (!forward) return forward.error();
    trainer_options_.forward = *forward;
    const std::int64_t limit = options_.memory > 0 ? options_.memory : memory_info().available;
    const std::int64_t kept = std::min(options_.kept_layers, limit / 16);
    trainer_options_.forward->kept_layer_bytes = options_.memory == kLeastMemory ? 0 : kept;
    HONE_RETURN_IF_ERROR(join());
    if (!options_.reward.empty() || !options_.rank.empty()) HONE_RETURN_IF_ERROR(make_judge());
  } else if (!options_.reward.empty() || !options_.rank.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "rewards and rankings have no gradient to go back through",
                 "--method",
                 options_.method.method,
                 "--method zo",
                 ""};
  }
  return {};
}

// All ranks must mean the same run: they exchange numbers alone.
Status Job::join() {
  if (workers_ == nullptr || workers_->size() == 1) return {};
  if (!options_.rank.empty()) {
    return Error{ErrorCode::kUnsupported,
                 "candidates are ranked by one process",
                 "--rank-by",
                 "",
                 "a run without mpirun",
                 ""};
  }
  HONE_RETURN_IF_ERROR(check_same(*workers_, "the settings", digest_of(options_.json())));
  HONE_RETURN_IF_ERROR(check_same(*workers_, "the data", digest_of(data_.report.sha256)));
  trainer_options_.forward->ranks = {
      workers_->rank(), workers_->size(),
      [this](std::span<const double> mine) { return workers_->gather(mine); }};
  return {};
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
  judge_ =
      std::make_unique<Judge>(*session_, *tokenizer_, trained_, std::move(asked),
                              JudgeOptions{options_.reward, options_.rank, options_.answer_tokens,
                                           chat() == nullptr, options_.program_seconds});
  TrainerOptions::Judging judging;
  judging.look = [this](std::span<const std::size_t> which) { return judge_->look(which); };
  if (options_.rank.empty()) {
    judging.losses = [this] { return judge_->losses(); };
  } else {
    judging.order = [this] { return judge_->order(); };
  }
  trainer_options_.judging = std::move(judging);
  return {};
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
  if (options_.memory == kLeastMemory) {
    HONE_RETURN_IF_ERROR(make_trainer(0, longest));
    resident_ = resident_memory().current;
    return planned_bytes() <= limit_;
  }
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
    const auto seconds = judge_ ? measure_judged() : trainer_->measure_step();
    if (!seconds) return seconds.error();
    step_seconds_ = *seconds;
    measure_resident();
    if (limit_ <= 0 || planned_bytes() <= limit_) break;
    HONE_RETURN_IF_ERROR(fit_memory());
  }
  return {};
}

// The answers of a step; what the reward's program takes is its own.
Result<double> Job::measure_judged() {
  const feedback::ForwardOptions& forward = *trainer_options_.forward;
  const Range mine = forward.own_directions();
  const std::int64_t directions = mine.end - mine.begin;
  const bool one_sided = forward.probe == feedback::Probe::kOneSided;
  const std::int64_t candidates = !options_.rank.empty() ? forward.directions
                                  : one_sided            ? directions + 1
                                                         : 2 * directions;
  std::vector<std::size_t> some(static_cast<std::size_t>(options_.batch));
  std::iota(some.begin(), some.end(), std::size_t{0});
  return judge_->try_out(some, candidates);
}

void Job::measure_resident() { resident_ = resident_memory().current; }

Result<double> Job::held_out_loss() {
  if (held_out_.empty()) return 0.0;
  return trainer_->evaluate(held_out_);
}

}  // namespace hone::tune
