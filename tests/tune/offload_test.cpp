// The optimizer's state in a file: the same bits as in memory, and less of it resident; and how
// long a step takes, measured before the first.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "../support/models.h"
#include "tune/setup.h"

namespace hone::tune {
namespace {

using testing_models::golden_folder;

// Of build folders, which lie on a disk where folders for temporary files may be in memory.
class FolderOnDisk {
 public:
  FolderOnDisk()
      : path_(
            (std::filesystem::current_path() / ("offload-" + std::to_string(getpid()))).string()) {
    std::filesystem::create_directories(path_);
  }
  ~FolderOnDisk() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  FolderOnDisk(const FolderOnDisk&) = delete;
  FolderOnDisk& operator=(const FolderOnDisk&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Result<TrainingSetup> make(const TrainerOptions& options, std::span<const Example> examples,
                           int threads) {
  engine::SessionOptions how;
  how.threads = threads;
  how.context = 32;
  return make_setup(golden_folder("llama"), how, {"full", "all", 4, 8, 1}, options, examples);
}

struct Case {
  const char* rule;
  bool inside;
};

class Offload : public testing::TestWithParam<Case> {};

TEST_P(Offload, GivesTheSameBits) {
  const FolderOnDisk folder;
  const auto examples = random_examples(4, 16, 160, 3);
  TrainerOptions options = plain_options(GetParam().rule, 1e-3, 4);
  options.update_inside = GetParam().inside;
  auto memory = make(options, examples, 2);
  options.offload = folder.path();
  auto file = make(options, examples, 2);
  auto resumed = make(options, examples, 1);
  if (!file && file.error().code == ErrorCode::kUnsupported) GTEST_SKIP() << file.error().text();
  ASSERT_TRUE(memory.ok() && file.ok() && resumed.ok());
  for (int step = 0; step < 4; ++step) {
    const auto one = memory->trainer->step();
    const auto other = file->trainer->step();
    ASSERT_TRUE(one.ok() && other.ok());
    EXPECT_EQ(one->loss, other->loss) << step;
    if (step != 1) continue;
    auto writer = CheckpointWriter::open(folder.path() + "/checkpoints");
    ASSERT_TRUE(writer.ok());
    const auto path = writer->write(2, "{}", file->trainer->state());
    ASSERT_TRUE(path.ok()) << path.error().text();
    const auto checkpoint = Checkpoint::open(*path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().text();
    ASSERT_TRUE(resumed->trainer->restore(*checkpoint).ok());
  }
  EXPECT_EQ(memory->trainer->hash(), file->trainer->hash());
  for (int step = 0; step < 2; ++step) ASSERT_TRUE(resumed->trainer->step().ok());
  EXPECT_EQ(memory->trainer->hash(), resumed->trainer->hash());
  const auto in_memory = memory->trainer->memory();
  const auto in_file = file->trainer->memory();
  ASSERT_TRUE(in_memory.ok() && in_file.ok());
  EXPECT_GT(in_memory->optimizer, 0);
  EXPECT_EQ(in_file->offloaded, in_memory->optimizer);
  EXPECT_EQ(in_file->optimizer, 0);
}

INSTANTIATE_TEST_SUITE_P(Rules, Offload,
                         testing::Values(Case{"adamw", false}, Case{"adamw", true},
                                         Case{"adamw8", false}, Case{"muon", false}),
                         [](const auto& info) {
                           return std::string(info.param.rule) +
                                  (info.param.inside ? "_inside" : "");
                         });

// The least of several on both sides: other work on a machine only adds. A wrong count of runs or
// of tokens is a factor of two or more; a step of milliseconds is left half of that.
TEST(StepTime, IsMeasuredBeforeTheFirst) {
  const auto examples = random_examples(24, 24, 160, 3);
  for (const bool inside : {false, true}) {
    TrainerOptions options = plain_options("adamw", 1e-3, 8);
    options.micro_tokens = 96;  // two runs a step
    options.update_inside = inside;
    auto made = make(options, examples, 1);
    ASSERT_TRUE(made.ok());
    const std::string before = made->trainer->hash();
    double estimated = INFINITY;
    double taken = INFINITY;
    for (int attempt = 0; attempt < 12; ++attempt) {
      const auto estimate = made->trainer->measure_step();
      ASSERT_TRUE(estimate.ok());
      if (attempt == 0) {
        EXPECT_EQ(made->trainer->hash(), before);
      }
      estimated = std::min(estimated, *estimate);
      for (int i = 0; i < 3; ++i) {
        const auto report = made->trainer->step();
        ASSERT_TRUE(report.ok());
        taken = std::min(taken, report->seconds);
      }
    }
    EXPECT_GT(estimated / taken, 0.5);
    EXPECT_LT(estimated / taken, 2);
  }
}

}  // namespace
}  // namespace hone::tune
