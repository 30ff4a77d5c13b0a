// Where streamed weights lie: random programs, random windows; what a load overwrites has gone.
// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_stream.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/checksum.h"
#include "base/file.h"
#include "base/random.h"
#include "runtime/execute.h"

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

// A file of Q8_0 matrices and a program whose steps look at every byte of what they read.
struct Matrices {
  std::string path;
  std::vector<kernels::PackedLayout> layouts;
  std::vector<std::int64_t> offsets;
  std::vector<std::vector<std::byte>> packed;
  std::vector<std::int64_t> packed_offsets;  // in the file, too
  ~Matrices() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }

  explicit Matrices(Random& random, std::size_t count) {
    path = (std::filesystem::temp_directory_path() / ("hone_stream_" + std::to_string(getpid())))
               .string();
    std::string bytes;
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t rows = 1 + random.below(100);
      layouts.push_back(*kernels::packed_layout(DType::kQ8_0, rows, 32 * (1 + random.below(20))));
      offsets.push_back(static_cast<std::int64_t>(bytes.size()));
      const std::size_t start = bytes.size();
      bytes.resize(start + static_cast<std::size_t>(
                               dtype_bytes(DType::kQ8_0, rows * layouts.back().columns)));
      for (std::size_t j = start; j < bytes.size(); ++j) {
        bytes[j] = static_cast<char>(random.below(256));
      }
      packed.emplace_back(static_cast<std::size_t>(layouts.back().total_bytes));
      kernels::pack_panels(layouts.back(),
                           std::as_bytes(std::span(bytes)).subspan(start, bytes.size() - start), 0,
                           layouts.back().panels(), packed.back());
    }
    for (const auto& each : packed) {
      packed_offsets.push_back(static_cast<std::int64_t>(bytes.size()));
      bytes.append(reinterpret_cast<const char*>(each.data()), each.size());
    }
    EXPECT_TRUE(write_file_atomically(path, bytes).ok());
  }
};

TEST(WeightStreamTest, EveryThreadSeesTheBytesOfItsStep) {
  Random random(9);
  const Matrices matrices(random, 12);
  std::int64_t largest = 0;
  for (const auto& layout : matrices.layouts) largest = std::max(largest, layout.total_bytes);
  constexpr int kThreads = 3;
  ThreadPool pool(kThreads);
  runtime::Workspace workspace;
  std::vector<runtime::Weight> weights(matrices.layouts.size());
  std::vector<const runtime::Weight*> pointers;
  for (const runtime::Weight& weight : weights) pointers.push_back(&weight);
  WeightStream stream(4 * largest);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    // Some are packed in the file, others on the way.
    const bool is_packed = i % 2 == 1;
    const std::int64_t offset = is_packed ? matrices.packed_offsets[i] : matrices.offsets[i];
    stream.add(weights[i],
               {"w" + std::to_string(i), matrices.path, offset, matrices.layouts[i], is_packed});
  }
  for (int round = 0; round < 30; ++round) {
    runtime::Program program;
    program.threads = kThreads;
    std::vector<std::array<bool, kThreads>> right(40, {false, false, false});
    for (std::size_t i = 0; i < right.size(); ++i) {
      runtime::Step step;
      step.barrier = random.below(5) != 0;
      const std::size_t which = random.below(static_cast<std::uint32_t>(weights.size()));
      if (i % 3 != 2) step.weights.push_back({static_cast<std::int32_t>(which), -1});
      const bool reads = !step.weights.empty();
      step.run = [&, which, reads, i](const runtime::Frame& frame, runtime::Worker worker) {
        const auto bytes = reads ? frame.read({runtime::Space::kParameter, which, 0}, worker.thread)
                                 : std::span<const std::byte>(matrices.packed[which]);
        right[i][static_cast<std::size_t>(worker.thread)] =
            std::ranges::equal(bytes, matrices.packed[which]);
      };
      program.steps.push_back(std::move(step));
    }
    const Status status = runtime::execute(program, {pointers, {}, {}}, pool, workspace);
    ASSERT_TRUE(status.ok()) << status.error().text();
    for (std::size_t i = 0; i < right.size(); ++i) {
      for (const bool each : right[i]) EXPECT_TRUE(each) << "step " << i;
    }
    EXPECT_TRUE(weights[0].bytes.empty());  // nothing is left behind a run
  }
}

TEST(WeightStreamTest, AFileThatIsTooShortEndsTheRun) {
  Random random(10);
  const Matrices matrices(random, 6);
  std::filesystem::resize_file(matrices.path, static_cast<std::uintmax_t>(matrices.offsets[4]));
  ThreadPool pool(2);
  runtime::Workspace workspace;
  std::vector<runtime::Weight> weights(6);
  std::vector<const runtime::Weight*> pointers;
  WeightStream stream(1 << 20);
  runtime::Program program;
  program.threads = 2;
  std::array<std::int64_t, 2> reached = {-1, -1};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    pointers.push_back(&weights[i]);
    stream.add(weights[i], {"w" + std::to_string(i), matrices.path, matrices.offsets[i],
                            matrices.layouts[i], false});
    runtime::Step step;
    step.weights.push_back({static_cast<std::int32_t>(i), -1});
    step.run = [&, i](const runtime::Frame&, runtime::Worker worker) {
      reached[static_cast<std::size_t>(worker.thread)] = static_cast<std::int64_t>(i);
    };
    program.steps.push_back(std::move(step));
  }
  for (int run = 0; run < 20; ++run) {
    const Status status = runtime::execute(program, {pointers, {}, {}}, pool, workspace);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kIo);
    EXPECT_NE(status.error().text().find("'w4'"), std::string::npos) << status.error().text();
    // All threads leave in front of the same step, at the latest that of the missing weight.
    EXPECT_EQ(reached[0], reached[1]);
    EXPECT_LE(reached[0], 3);
  }
}

}  // namespace
}  // namespace hone::engine
