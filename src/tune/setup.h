// A session, what is trained of it and the loop that trains it, in one call: for measurements,
// recipes and tests that bring their own examples.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tune/trainer.h"

namespace hone::tune {

struct TrainingSetup {
  std::unique_ptr<engine::Session> session;
  std::unique_ptr<Trained> trained;
  std::unique_ptr<Trainer> trainer;
};

// The examples outlive it. The compile options are the session's.
Result<TrainingSetup> make_setup(const std::string& model, const engine::SessionOptions& how,
                                 const MethodOptions& method, TrainerOptions options,
                                 std::span<const Example> examples);

// Sequences of random tokens, all of them targets but the first.
std::vector<Example> random_examples(std::int64_t count, std::int64_t length,
                                     std::int64_t vocabulary, std::uint64_t seed);

// An update rule with its defaults at a constant rate.
TrainerOptions plain_options(std::string_view rule, double learning_rate, std::int64_t batch);

}  // namespace hone::tune
