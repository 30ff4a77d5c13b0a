// The executor: barriers order what needs order, threads have memory of their own, patched weights
// are seen at the next run.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/execute.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>

namespace hone::runtime {
namespace {

constexpr std::size_t kSize = 1024;  // floats of a value
constexpr std::size_t kBytes = kSize * sizeof(float);

Step step_of(StepFunction run, bool barrier = true) {
  Step step;
  step.run = std::move(run);
  step.barrier = barrier;
  step.op = "test";
  return step;
}

// y = w + x by shares; then rounds of "each element becomes the sum of its mirror and one" between
// two places: every round reads what other threads wrote in the round before.
Program mirror_program(int threads, int rounds) {
  Program program;
  program.threads = threads;
  program.arena_bytes = 2 * kBytes;
  program.inputs.push_back({"x", ir::tensor_type({kSize}), {Space::kInput, 0, kBytes}});
  program.parameters.push_back({"w", ir::tensor_type({kSize}), {Space::kParameter, 0, kBytes}});
  const Place places[] = {{Space::kArena, 0, kBytes}, {Space::kArena, kBytes, kBytes}};
  const Place x = program.inputs[0].place;
  const Place w = program.parameters[0].place;
  program.steps.push_back(step_of([=, y = places[0]](const Frame& frame, Worker worker) {
    const Range range = share_of(kSize, worker.thread, worker.threads);
    for (std::int64_t i = range.begin; i < range.end; ++i) {
      frame.floats(y, worker.thread)[i] =
          frame.read_floats(x, worker.thread)[i] + frame.read_floats(w, worker.thread)[i];
    }
  }));
  for (int round = 0; round < rounds; ++round) {
    program.steps.push_back(step_of([from = places[round % 2], to = places[(round + 1) % 2]](
                                        const Frame& frame, Worker worker) {
      const Range range = share_of(kSize, worker.thread, worker.threads);
      const auto in = frame.read_floats(from, worker.thread);
      const auto out = frame.floats(to, worker.thread);
      for (std::int64_t i = range.begin; i < range.end; ++i) {
        out[i] = in[kSize - 1 - static_cast<std::size_t>(i)] + 1;
      }
    }));
  }
  program.outputs.push_back({"y", ir::tensor_type({kSize}), places[rounds % 2]});
  return program;
}

TEST(Execute, BarriersOrderStepsOnAnyNumberOfThreads) {
  std::vector<float> x(kSize), values(kSize, 100.0f);
  std::iota(x.begin(), x.end(), 0.0f);
  for (const int threads : {1, 2, 3, 4}) {
    ThreadPool pool(threads);
    if (pool.size() != threads) GTEST_SKIP() << "the system refuses " << threads << " threads";
    const Program program = mirror_program(threads, 40);
    const Weight weight{std::as_bytes(std::span(values))};
    const std::array<const Weight*, 1> weights = {&weight};
    const std::array inputs = {std::as_bytes(std::span<const float>(x))};
    Workspace workspace;
    for (int run = 0; run < 20; ++run) {
      (void)execute(program, {weights, inputs, {}}, pool, workspace);
      const auto y = output(program, workspace, 0);
      ASSERT_EQ(y.size(), kSize);
      // An even number of mirrors: each element where it was, plus one a round.
      for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(y[i], x[i] + 140.0f) << threads;
    }
  }
}

TEST(Execute, PatchedWeightIsSeenByTheSameProgram) {
  std::vector<float> x(kSize, 1.0f), first(kSize, 2.0f), second(kSize, 30.0f);
  const Program program = mirror_program(2, 0);
  ThreadPool pool(2);
  Weight weight{std::as_bytes(std::span(first))};
  const std::array<const Weight*, 1> weights = {&weight};
  const std::array inputs = {std::as_bytes(std::span<const float>(x))};
  Workspace workspace;
  (void)execute(program, {weights, inputs, {}}, pool, workspace);
  EXPECT_EQ(output(program, workspace, 0)[7], 3.0f);
  weight.bytes = std::as_bytes(std::span(second));
  (void)execute(program, {weights, inputs, {}}, pool, workspace);
  EXPECT_EQ(output(program, workspace, 0)[7], 31.0f);
}

TEST(Execute, PrivateMemoryAndScratchBelongToOneThread) {
  for (const int threads : {1, 2, 4}) {
    Program program;
    program.threads = threads;
    program.arena_bytes = 100;  // not a multiple of a line
    program.private_bytes = 256;
    program.scratch_bytes = 128;
    const Place mine{Space::kPrivate, 64, 16};
    std::array<std::byte*, 4> lows{};
    // Without a barrier in between: nobody else touches the memory.
    program.steps.push_back(step_of(
        [&](const Frame& frame, Worker worker) {
          for (float& value : frame.floats(mine, worker.thread)) {
            value = static_cast<float>(worker.thread + 1);
          }
          std::memset(frame.scratch_of(worker.thread).data(), worker.thread, 128);
          lows[static_cast<std::size_t>(worker.thread)] = frame.scratch_of(worker.thread).data();
        },
        false));
    std::array<bool, 4> right{};
    program.steps.push_back(step_of([&](const Frame& frame, Worker worker) {
      bool same = reinterpret_cast<std::uintptr_t>(frame.arena) % 64 == 0 &&
                  reinterpret_cast<std::uintptr_t>(frame.private_memory) % 64 == 0;
      for (const float value : frame.read_floats(mine, worker.thread)) {
        same = same && value == static_cast<float>(worker.thread + 1);
      }
      for (const std::byte value : frame.scratch_of(worker.thread)) {
        same = same && value == static_cast<std::byte>(worker.thread);
      }
      right[static_cast<std::size_t>(worker.thread)] = same;
    }));
    program.outputs.push_back({"mine", ir::tensor_type({4}), mine});
    ThreadPool pool(threads);
    if (pool.size() != threads) GTEST_SKIP() << "the system refuses " << threads << " threads";
    Workspace workspace;
    (void)execute(program, {}, pool, workspace);
    for (int t = 0; t < threads; ++t) EXPECT_TRUE(right[static_cast<std::size_t>(t)]) << t;
    EXPECT_EQ(output(program, workspace, 0)[0], 1.0f) << "thread 0's copy is the output";
    EXPECT_GE(workspace.capacity(), workspace_bytes(program));
    EXPECT_GE(workspace_bytes(program), static_cast<std::size_t>(100 + (256 + 128) * threads));
  }
}

TEST(Execute, ProfileCountsEveryStepAndRun) {
  std::vector<float> x(kSize, 1.0f);
  const Program program = mirror_program(2, 3);
  ThreadPool pool(2);
  const Weight weight{std::as_bytes(std::span(x))};
  const std::array<const Weight*, 1> weights = {&weight};
  const std::array inputs = {std::as_bytes(std::span<const float>(x))};
  Workspace workspace;
  Profile profile;
  for (int run = 0; run < 3; ++run) {
    (void)execute(program, {weights, inputs, {}}, pool, workspace, &profile);
  }
  EXPECT_EQ(profile.runs, 3);
  ASSERT_EQ(profile.step_nanoseconds.size(), program.steps.size());
  for (const std::int64_t nanoseconds : profile.step_nanoseconds) EXPECT_GT(nanoseconds, 0);
}

TEST(Workspace, GrowsAndNeverShrinks) {
  Workspace workspace;
  const std::byte* first = workspace.reserve(1000);
  EXPECT_EQ(workspace.reserve(10), first);
  EXPECT_GE(workspace.capacity(), 1000u);
  workspace.reserve(100000);
  EXPECT_GE(workspace.capacity(), 100000u);
}

}  // namespace
}  // namespace hone::runtime
