// Images whose classes come one pair after another, without replay: what a classifier has learned
// right after each pair, and what is left of it at the end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "optim/settings.h"
#include "tune/classifier.h"
#include "tune/images.h"

namespace hone::tune {

// Rows and labels of one task: classes 2 t and 2 t + 1.
struct ClassTask {
  std::vector<float> features;  // (N, width)
  std::vector<std::int32_t> labels;
};
// The first `most` images of each of the tasks.
std::vector<ClassTask> class_tasks(const Images& images, std::int64_t most);

struct ClassTaskRun {
  std::int64_t hidden = 64;  // a trunk of two layers, one head over all classes
  std::int64_t batch = 64;
  double rate = 1e-3;
  std::uint64_t seed = 1;
};

struct ClassTaskOutcome {
  double current = 0;     // mean accuracy on a task right after it, among all classes
  double final = 0;       // mean accuracy on all tasks at the end
  double forgetting = 0;  // mean loss of accuracy since then, of all tasks but the last
  double stable_rank = 0, effective_rank = 0;  // means of the trunk's matrices (optim/measure.h)
};

// One epoch of each task, in order, the optimizer's state carried along.
Result<ClassTaskOutcome> learn_in_turn(ThreadPool& pool, const std::vector<ClassTask>& train,
                                       const std::vector<ClassTask>& test,
                                       const optim::UpdateRule& rule,
                                       const optim::Settings& settings, const ClassTaskRun& run);

// The rate at which a measure that rises with it reaches the target: `tries` halvings of the
// logarithm between two rates.
Result<double> rate_reaching(double target, double least, double most, std::int64_t tries,
                             const std::function<Result<double>(double rate)>& measure);

}  // namespace hone::tune
