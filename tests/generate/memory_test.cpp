// The memory that running a real model takes, measured from outside.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "../support/command.h"
#include "../support/models.h"

namespace hone::testing_models {
namespace {

TEST(Memory, PeakIsTheFileAndTheCacheAndLittleMore) {
#ifdef HONE_BINARY
  if (cached_model("smollm2-135m-instruct-q4_1.gguf").empty()) {
    GTEST_SKIP() << "the model is not in the cache: hone fetch smollm2";
  }
  const auto finished = testing_commands::run({HONE_BINARY, "bench", "run", "smollm2", "--prompt",
                                               "64", "--generate", "8", "--repeat", "1", "--json"},
                                              false);
  ASSERT_EQ(finished.status, 0) << finished.output;
  const nlohmann::json said = nlohmann::json::parse(finished.output, nullptr, false);
  ASSERT_TRUE(said.is_object()) << finished.output;
  const double file = said["file_bytes"], cache = said["cache_bytes"], peak = said["peak_bytes"];
  std::printf("peak %.1f MiB, file %.1f MiB, cache %.1f MiB\n", peak / 1048576, file / 1048576,
              cache / 1048576);
  // Resident, as the system counts it: weights in another layout, activations, the program and the
  // system's libraries, whatever they are for.
  EXPECT_LE(peak, 1.15 * (file + cache));
  EXPECT_GT(file, 0);
  EXPECT_GT(cache, 0);
  EXPECT_GT(peak, cache);
#else
  GTEST_SKIP() << "the program was not built";
#endif
}

}  // namespace
}  // namespace hone::testing_models
