// A model, a classification task asked as prompts, and what tuning makes of it: what recipes about
// forward passes share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/session.h"
#include "formats/tokenizer.h"
#include "tune/choice_task.h"
#include "tune/job.h"

namespace hone::tune {

struct ChoiceStudyOptions {
  std::string model;
  std::string data;  // the folder that has sst2-train.tsv and sst2-dev.tsv
  std::int64_t training = 1000, test = 400;
  std::uint64_t seed = 0;  // of which examples
  int threads = 0;         // 0: all cores
  engine::Arithmetic arithmetic = engine::Arithmetic::kInteger;
};

// How a run tunes: `job` gives the method and, of `zo`, how directions are tried.
struct ChoiceRun {
  JobOptions job;
  std::string_view rule = "sgd";
  std::string_view settings = "momentum=0";
  double rate = 1e-3;
  std::string_view schedule = "constant";
  std::int64_t steps = 300;
  std::int64_t batch = 16;
  std::uint64_t seed = 1;
  double clip = 0;
};

struct ChoiceOutcome {
  ChoiceScores test;
  double seconds = 0;        // of all steps
  double planned_bytes = 0;  // activations, work, directions and what is trained; not what is
                             // kept of lower layers, which is a choice
  std::int64_t clipped = 0, skipped = 0;
  std::int64_t removed = 0;                // directions of the trajectories, at the end
  std::vector<double> losses;              // of each step
  std::shared_ptr<const Trained> trained;  // in the session's memory, until the next run
};

// What tune_best found: the rate, and the test scores of each seed at it.
struct BestRate {
  double rate = 0;
  std::vector<ChoiceScores> scores;
  double loss = 0, accuracy = 0;  // means
  std::string text() const;       // "loss 0.500 (0.490 to 0.510), accuracy 0.800, rate 0.001"
};

class ChoiceStudy {
 public:
  // kNotFound where the data is absent.
  static Result<std::unique_ptr<ChoiceStudy>> open(const ChoiceStudyOptions& options);

  std::span<const ChoiceExample> training() const { return training_; }
  std::span<const ChoiceExample> test() const { return test_; }
  engine::Session& session() { return *session_; }
  const ChoiceStudyOptions& options() const { return options_; }

  struct Baselines {
    double zero_shot = 0;
    double median = 0;  // median_accuracy
    double probe = 0;   // logistic regression on the last hidden state of the prompt
  };
  Result<Baselines> baselines();
  // From the model itself; the session is opened anew, so that runs share nothing.
  Result<ChoiceOutcome> tune(const ChoiceRun& run);
  // The test examples, with what was trained; nullptr: as the session's model is.
  Result<ChoiceScores> score(engine::Session& session, const Trained* trained,
                             engine::Arithmetic arithmetic) const;
  // The same from `seeds` seeds, beginning with the run's own; `told` hears of each. What they
  // trained is gone: the last of them stands.
  Result<std::vector<ChoiceOutcome>> tune_seeds(
      ChoiceRun run, std::int64_t seeds,
      const std::function<void(std::uint64_t seed, const ChoiceOutcome& outcome)>& told);
  // With each rate from the run's own seed, of which the one stays whose last fifth of the training
  // losses is least; with that from `seeds` - 1 more.
  Result<BestRate> tune_best(ChoiceRun run, std::span<const double> rates, std::int64_t seeds);

 private:
  explicit ChoiceStudy(ChoiceStudyOptions options) : options_(std::move(options)) {}
  Status open_session();
  // (N, C): the final hidden state behind each prompt.
  Result<std::vector<float>> hidden_states(std::span<const ChoiceExample> examples);

  ChoiceStudyOptions options_;
  std::unique_ptr<engine::Session> session_;
  std::vector<ChoiceExample> training_, test_;
};

// Accuracy on (test, labels) of a logistic regression fitted to (train, labels) with L2
// regularization, features standardized. Rows are of `columns` features.
double logistic_accuracy(std::span<const float> train, std::span<const std::size_t> train_labels,
                         std::span<const float> test, std::span<const std::size_t> test_labels,
                         std::size_t columns);

}  // namespace hone::tune
