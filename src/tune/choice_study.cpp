// SPDX-License-Identifier: Apache-2.0
#include "tune/choice_study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/timing.h"
#include "engine/limits.h"
#include "ops/registry.h"
#include "tune/input_factors.h"
#include "tune/setup.h"

namespace hone::tune {
namespace {

// The rows that the output matrix is multiplied with become an output.
Result<ir::Graph> with_hidden(const ir::Graph& graph) {
  ir::Rewriter rewriter(graph, ops::find_op);
  for (const ir::Operation& operation : graph.operations) rewriter.copy(operation);
  const ir::Operation* product = &graph.producer(graph.outputs[0]);
  while (!product->is("matmul")) product = &graph.producer(product->operands[0]);
  const ir::ValueId hidden = rewriter.map(product->operands[0]);
  auto result = rewriter.finish();
  if (!result) return result;
  result->outputs.push_back(hidden);
  result->output_names.emplace_back("hidden");
  return result;
}

// The prompt with its right word, of which the word is learned.
Example plain_example(const ChoiceExample& from) {
  Example example;
  example.tokens = from.prompt;
  example.learn.assign(from.prompt.size(), 0);
  for (const formats::TokenId token : from.choices[from.right]) {
    example.tokens.push_back(token);
    example.learn.push_back(1);
  }
  return example;
}

std::vector<std::size_t> labels_of(std::span<const ChoiceExample> examples) {
  std::vector<std::size_t> labels;
  for (const ChoiceExample& example : examples) labels.push_back(example.right);
  return labels;
}

}  // namespace

Status ChoiceStudy::open_session() {
  engine::SessionOptions how;
  how.threads = options_.threads;
  how.compile.arithmetic = options_.arithmetic;
  how.context = 64;
  auto session = engine::Session::open(options_.model, how);
  if (!session) return session.error();
  session_ = *std::move(session);
  return {};
}

Result<std::unique_ptr<ChoiceStudy>> ChoiceStudy::open(const ChoiceStudyOptions& options) {
  std::unique_ptr<ChoiceStudy> study(new ChoiceStudy(options));
  const auto train = read_labelled_text(options.data + "/sst2-train.tsv");
  if (!train) return train.error();
  const auto dev = read_labelled_text(options.data + "/sst2-dev.tsv");
  if (!dev) return dev.error();
  HONE_RETURN_IF_ERROR(study->open_session());
  auto vocabulary = study->session_->source().vocabulary();
  if (!vocabulary) return vocabulary.error();
  const auto tokenizer = formats::Tokenizer::create(*std::move(vocabulary));
  if (!tokenizer) return tokenizer.error();
  study->training_ =
      choice_examples(*tokenizer, sst2_prompt(), *train, options.training, options.seed);
  study->test_ = choice_examples(*tokenizer, sst2_prompt(), *dev, options.test, options.seed);
  return study;
}

Result<std::vector<float>> ChoiceStudy::hidden_states(std::span<const ChoiceExample> examples) {
  feedback::GradientOptions options;
  options.compile = session_->options().compile;
  options.forward_only = true;
  options.adapt = with_hidden;
  feedback::Gradient forward(*session_, options);
  const auto columns = static_cast<std::size_t>(session_->config().hidden);
  std::vector<float> rows;
  constexpr std::size_t kTogether = 32;
  for (std::size_t first = 0; first < examples.size(); first += kTogether) {
    std::vector<std::size_t> which;
    for (std::size_t i = first; i < std::min(first + kTogether, examples.size()); ++i) {
      which.push_back(i);
    }
    const feedback::TokenBatch batch = choice_batch(examples, which);
    auto outcome = forward.run(batch);
    if (!outcome) return outcome.error();
    // Each question's first row is behind its prompt.
    const std::size_t each = batch.rows.size() / which.size();
    for (std::size_t i = 0; i < which.size(); ++i) {
      const auto row = outcome->gradients[0].subspan(i * each * columns, columns);
      rows.insert(rows.end(), row.begin(), row.end());
    }
  }
  return rows;
}

Result<ChoiceStudy::Baselines> ChoiceStudy::baselines() {
  Baselines found;
  feedback::GradientOptions options;
  options.compile = session_->options().compile;
  options.forward_only = true;
  feedback::Gradient forward(*session_, options);
  std::vector<double> training_margins;
  std::vector<double> margins;
  const auto trained = score_choices(forward, training_, &training_margins);
  if (!trained) return trained.error();
  const auto scores = score_choices(forward, test_, &margins);
  if (!scores) return scores.error();
  found.zero_shot = scores->accuracy;
  found.median = median_accuracy(training_margins, margins, test_);
  const auto train = hidden_states(training_);
  const auto test = train ? hidden_states(test_) : train;
  if (!test) return test.error();
  found.probe = logistic_accuracy(*train, labels_of(training_), *test, labels_of(test_),
                                  static_cast<std::size_t>(session_->config().hidden));
  return found;
}

Result<ChoiceOutcome> ChoiceStudy::tune(const ChoiceRun& run) {
  HONE_RETURN_IF_ERROR(open_session());
  MethodOptions method = run.job.trained_method(session_->config().layers);
  method.seed = run.seed;
  auto trained = prepare(*session_, method);
  if (!trained) return trained.error();
  std::vector<Example> examples;
  for (const ChoiceExample& example : training_) examples.push_back(plain_example(example));
  const auto kind = optim::schedule_named(run.schedule);
  if (!kind) return kind.error();
  TrainerOptions options = plain_options(run.rule, run.rate, run.batch);
  auto settings = optim::Settings::parse(*options.rule, std::string(run.settings));
  if (!settings) return settings.error();
  options.settings = *settings;
  options.schedule = {*kind, run.rate, run.steps, run.steps / 20, 0, 0.0};
  options.seed = run.seed;
  options.clip = run.clip;
  options.compile = session_->options().compile;
  if (run.job.forward_only()) {
    JobOptions job = run.job;
    const auto forward = job.forward_options();
    if (!forward) return forward.error();
    options.forward = *forward;
    options.forward->kept_layer_bytes = run.job.kept_layers;
    options.trajectory = job.trajectory;
    options.seed_momentum = job.seed_momentum;
    options.line_search = job.line_search;
    options.backward_layers = job.backward_layers;
    if (job.backward_rate > 0) options.backward_factor = job.backward_rate / run.rate;
    const std::int64_t in_front = trained->virtual_tokens;
    options.batches = [this, in_front](std::span<const std::size_t> which) {
      return std::vector<feedback::TokenBatch>{choice_batch(training_, which, in_front)};
    };
    if (method.fixed_a && job.factor == "inputs") {
      std::vector<feedback::TokenBatch> some;
      for (std::size_t first = 0; first + 16 <= training_.size() && some.size() < 8; first += 16) {
        std::vector<std::size_t> which(16);
        std::iota(which.begin(), which.end(), first);
        some.push_back(choice_batch(training_, which));
      }
      HONE_RETURN_IF_ERROR(set_input_factors(*session_, *trained, some));
    }
  }
  auto trainer = Trainer::create(*session_, *trained, examples, options);
  if (!trainer) return trainer.error();
  ChoiceOutcome outcome;
  const auto memory = (*trainer)->memory();
  if (!memory) return memory.error();
  outcome.planned_bytes = static_cast<double>(memory->total() - memory->weights - memory->kept);
  const double start = seconds_now();
  for (std::int64_t step = 0; step < run.steps; ++step) {
    const auto report = (*trainer)->step();
    if (!report) return report.error();
    outcome.losses.push_back(report->loss);
    outcome.clipped += report->clipped;
    outcome.skipped += report->skipped ? 1 : 0;
  }
  outcome.seconds = seconds_now() - start;
  const auto scores = score(*session_, &*trained, options_.arithmetic);
  if (!scores) return scores.error();
  outcome.test = *scores;
  outcome.removed = (*trainer)->removed_directions();
  outcome.trained = std::make_shared<const Trained>(*trained);
  return outcome;
}

Result<ChoiceScores> ChoiceStudy::score(engine::Session& session, const Trained* trained,
                                        engine::Arithmetic arithmetic) const {
  feedback::GradientOptions scoring;
  scoring.compile = session.options().compile;
  scoring.compile.arithmetic = arithmetic;
  scoring.forward_only = true;
  if (trained != nullptr) {
    scoring.adapt = trained->adapt_exactly;
    for (const TrainedTensor& tensor : trained->tensors) scoring.trained.push_back(tensor.name);
  }
  feedback::Gradient forward(session, scoring);
  return score_choices(forward, test_, nullptr, trained != nullptr ? trained->virtual_tokens : 0);
}

Result<std::vector<ChoiceOutcome>> ChoiceStudy::tune_seeds(
    ChoiceRun run, std::int64_t seeds,
    const std::function<void(std::uint64_t seed, const ChoiceOutcome& outcome)>& told) {
  std::vector<ChoiceOutcome> outcomes;
  for (; std::ssize(outcomes) < seeds; ++run.seed) {
    auto outcome = tune(run);
    if (!outcome) return outcome.error();
    told(run.seed, *outcome);
    if (!outcomes.empty()) outcomes.back().trained.reset();
    outcomes.push_back(*std::move(outcome));
  }
  return outcomes;
}

std::string BestRate::text() const {
  const auto [least, most] = std::ranges::minmax_element(scores, {}, &ChoiceScores::loss);
  return fmt::format("loss {:.3f} ({:.3f} to {:.3f}), accuracy {:.3f}, rate {:g}", loss,
                     least->loss, most->loss, accuracy, rate);
}

Result<BestRate> ChoiceStudy::tune_best(ChoiceRun run, std::span<const double> rates,
                                        std::int64_t seeds) {
  BestRate best;
  double least = std::numeric_limits<double>::infinity();
  for (const double rate : rates) {
    run.rate = rate;
    const auto outcome = tune(run);
    if (!outcome) return outcome.error();
    const auto& losses = outcome->losses;
    const auto last = static_cast<std::ptrdiff_t>(std::max<std::size_t>(1, losses.size() / 5));
    const double end = std::accumulate(losses.end() - last, losses.end(), 0.0);
    if (end >= least && !best.scores.empty()) continue;
    least = end;
    best.rate = rate;
    best.scores.assign(1, outcome->test);
  }
  run.rate = best.rate;
  ++run.seed;
  const auto more = tune_seeds(run, seeds - 1, [](auto, const auto&) {});
  if (!more) return more.error();
  for (const ChoiceOutcome& each : *more) best.scores.push_back(each.test);
  for (const ChoiceScores& each : best.scores) {
    best.loss += each.loss / static_cast<double>(best.scores.size());
    best.accuracy += each.accuracy / static_cast<double>(best.scores.size());
  }
  return best;
}

double logistic_accuracy(std::span<const float> train, std::span<const std::size_t> train_labels,
                         std::span<const float> test, std::span<const std::size_t> test_labels,
                         std::size_t columns) {
  const std::size_t rows = train_labels.size();
  std::vector<double> mean(columns, 0.0), deviation(columns, 0.0);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t c = 0; c < columns; ++c) mean[c] += double{train[i * columns + c]};
  }
  for (double& value : mean) value /= static_cast<double>(rows);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t c = 0; c < columns; ++c) {
      const double off = double{train[i * columns + c]} - mean[c];
      deviation[c] += off * off / static_cast<double>(rows);
    }
  }
  for (double& value : deviation) value = std::sqrt(value) + 1e-6;
  const auto feature = [&](std::span<const float> from, std::size_t row, std::size_t c) {
    return (double{from[row * columns + c]} - mean[c]) / deviation[c];
  };
  std::vector<double> weights(columns + 1, 0.0);
  const auto logit = [&](std::span<const float> from, std::size_t row) {
    double sum = weights[columns];
    for (std::size_t c = 0; c < columns; ++c) sum += weights[c] * feature(from, row, c);
    return sum;
  };
  // Gradient descent on the mean loss plus 0.05 |w|^2 / 2: standardized features keep it tame.
  constexpr int kSteps = 400;
  constexpr double kRate = 0.02;
  constexpr double kDecay = 0.05;
  for (int step = 0; step < kSteps; ++step) {
    std::vector<double> gradient(columns + 1, 0.0);
    for (std::size_t i = 0; i < rows; ++i) {
      const double off =
          1 / (1 + std::exp(-logit(train, i))) - static_cast<double>(train_labels[i] == 1);
      for (std::size_t c = 0; c < columns; ++c) gradient[c] += off * feature(train, i, c);
      gradient[columns] += off;
    }
    for (std::size_t c = 0; c <= columns; ++c) {
      const double decay = c < columns ? kDecay * weights[c] : 0;
      weights[c] -= kRate * (gradient[c] / static_cast<double>(rows) + decay);
    }
  }
  double right = 0;
  for (std::size_t i = 0; i < test_labels.size(); ++i) {
    if ((logit(test, i) > 0) == (test_labels[i] == 1)) right += 1;
  }
  return right / static_cast<double>(test_labels.size());
}

}  // namespace hone::tune
