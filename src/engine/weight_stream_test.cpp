// Where streamed weights lie: random programs, random windows; what a load overwrites has gone.
// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_stream.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace hone::engine {
namespace {

using stream_detail::Load;
using stream_detail::Plan;

struct Made {
  runtime::Program program;
  std::vector<runtime::Weight> weights;
  Plan plan;
};

Made random_plan(Random& random) {
  Made made;
  const std::size_t steps = 5 + random.below(30);
  made.weights.resize(4 + random.below(20));
  made.program.steps.resize(steps);
  for (runtime::Step& step : made.program.steps) step.barrier = random.below(4) != 0;
  std::size_t first = 0;
  while (first < steps) {
    Load load;
    load.weight = &made.weights[random.below(static_cast<std::uint32_t>(made.weights.size()))];
    load.first = first;
    load.last = std::min<std::size_t>(steps - 1, first + random.below(3));
    load.bytes = random.below(8) == 0 ? 0 : 64 * (1 + random.below(40));
    made.plan.loads.push_back(load);
    first += random.below(3);
  }
  return made;
}

// Runs the plan as slowly as it can be: every load as late as its step lets it, every release at
// the barrier. False where a step would wait for ever.
bool runs(const Made& made) {
  std::size_t loaded = 0;
  std::size_t released = 0;
  for (std::size_t step = 0; step < made.program.steps.size(); ++step) {
    for (; loaded < made.plan.needed[step]; ++loaded) {
      if (made.plan.loads[loaded].after > released) return false;
    }
    if (made.program.steps[step].barrier) released = std::max(released, made.plan.free[step]);
  }
  return true;
}

TEST(WeightStreamTest, NothingIsOverwrittenThatIsStillRead) {
  Random random(7);
  int placed = 0;
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    Made made = random_plan(random);
    const std::int64_t window = 64 * (1 + random.below(200));
    const Status status = stream_detail::place(made.plan, made.program, window);
    const std::vector<Load>& loads = made.plan.loads;
    if (!status.ok()) {
      EXPECT_EQ(status.error().code, ErrorCode::kOutOfMemory);
      ++refused;
      continue;
    }
    ++placed;
    EXPECT_TRUE(runs(made));
    for (std::size_t i = 0; i < loads.size(); ++i) {
      EXPECT_LE(loads[i].offset + loads[i].bytes, window);
      EXPECT_LE(loads[i].after, i);
      for (std::size_t j = loads[i].after; j < i; ++j) {  // may still be there when i comes
        const bool apart = loads[i].bytes == 0 || loads[j].bytes == 0 ||
                           loads[i].offset + loads[i].bytes <= loads[j].offset ||
                           loads[j].offset + loads[j].bytes <= loads[i].offset;
        EXPECT_TRUE(apart) << i << " over " << j;
        EXPECT_NE(loads[i].weight, loads[j].weight);
      }
    }
    // A load goes when all steps that read it are behind a barrier, and not before.
    for (std::size_t step = 0; step < made.program.steps.size(); ++step) {
      for (std::size_t i = 0; i < made.plan.free[step]; ++i) EXPECT_LE(loads[i].last, step);
    }
  }
  EXPECT_GT(placed, 300);
  EXPECT_GT(refused, 300);
}

TEST(WeightStreamTest, TheWindowThatAnErrorAsksForIsEnough) {
  Random random(8);
  for (int round = 0; round < 1000; ++round) {
    Made made = random_plan(random);
    // A weight that is needed twice at a time is one load; here every weight comes once.
    made.plan.loads.resize(std::min(made.plan.loads.size(), made.weights.size()));
    for (std::size_t i = 0; i < made.plan.loads.size(); ++i) {
      made.plan.loads[i].weight = &made.weights[i];
    }
    (void)stream_detail::place(made.plan, made.program, 64);
    const std::int64_t enough = stream_detail::enough_window(made.plan);
    EXPECT_TRUE(stream_detail::place(made.plan, made.program, enough).ok());
    EXPECT_TRUE(runs(made));
  }
}

}  // namespace
}  // namespace hone::engine
