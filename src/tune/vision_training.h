// Epochs of small vision networks, by backpropagation, the elastic split, or integers alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tune/elastic.h"
#include "tune/integer_network.h"
#include "tune/vision_data.h"

namespace hone::tune {

struct VisionRun {
  ElasticOptions options;
  std::int64_t epochs = 1;
  std::int64_t batch = 64;  // examples that fill no batch are left out
};

struct VisionOutcome {
  double accuracy = 0;    // on the test data, afterwards
  double first_loss = 0;  // means of the first and the last epoch, nats
  double last_loss = 0;
  double step_seconds = 0;  // of processor time: what other programs do does not count
  std::int64_t bytes = 0;   // planned: in place, as the paper counts; measured for integers
  std::int64_t beside = 0;  // and what a copy of the perturbed layers adds here
};

// Both rates fall linearly to a tenth. Goes on from what the network holds.
Result<VisionOutcome> train_vision(Network& network, const VisionModel& model,
                                   const VisionData& train, const VisionData& test,
                                   const VisionRun& run);

// One problem, learned with several tails: layers behind the cut; -1 is all, backpropagation alone.
struct VisionTask {
  std::string name;
  VisionModel model;
  VisionData train, test;
  VisionRun run;  // `cut` comes from the tails
};
// From one start: what `start` holds, or new parameters where it is null.
Result<std::vector<VisionOutcome>> compare_tails(
    ThreadPool& pool, const VisionTask& task, std::span<const std::int64_t> tails, Network* start,
    const std::function<void(std::string_view line)>& tell);

// Mantissas of images for the integer network: 127 is white.
std::vector<std::int8_t> mantissas(std::span<const float> features);

struct IntegerRun {
  integer::IntegerOptions options;
  std::int32_t last_zeros = 62259;  // the part of the probe that is 0 grows to this, times 2^16
  std::int64_t epochs = 1;
  std::int64_t batch = 64;
};
VisionOutcome train_integers(const VisionData& train, const VisionData& test,
                             const IntegerRun& run);

}  // namespace hone::tune
