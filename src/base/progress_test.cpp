// The texts of the progress line and of the numbers in it.
// SPDX-License-Identifier: Apache-2.0
#include "base/progress.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>

#include "base/human.h"

namespace hone {
namespace {

TEST(Human, Bytes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.00 kB");
  EXPECT_EQ(human_bytes(98'356'224), "98.4 MB");
  EXPECT_EQ(human_bytes(999'600'000), "1.00 GB");  // rounds into the next unit
  EXPECT_EQ(human_bytes(-1500), "-1.50 kB");
  EXPECT_EQ(human_bytes(std::numeric_limits<std::int64_t>::max()), "9.22 EB");
  EXPECT_EQ(human_bytes(std::numeric_limits<std::int64_t>::min()), "-9.22 EB");
}

TEST(Human, Durations) {
  EXPECT_EQ(human_duration(0), "0.00 ns");
  EXPECT_EQ(human_duration(12.34e-6), "12.3 us");
  EXPECT_EQ(human_duration(4.561e-3), "4.56 ms");
  EXPECT_EQ(human_duration(59), "59.0 s");
  EXPECT_EQ(human_duration(59.99), "1 min 00 s");
  EXPECT_EQ(human_duration(125), "2 min 05 s");
  EXPECT_EQ(human_duration(11'220), "3 h 07 min");
  EXPECT_EQ(human_duration(-1), "?");
  EXPECT_EQ(human_duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(human_duration(1e300), "?");
}

TEST(Human, Counts) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(1234567), "1,234,567");
  EXPECT_EQ(human_count(-123456), "-123,456");
  EXPECT_EQ(human_count(-123), "-123");
}

TEST(Progress, SaysHowFarHowFastAndHowLong) {
  EXPECT_EQ(progress_line("m.gguf", 50'000'000, 100'000'000, 0, 5, 120),
            "m.gguf  50% [##########          ] 50.0 MB of 100 MB, 10.0 MB/s, 5.00 s left");
  // Resumed: the rate counts what came since.
  EXPECT_EQ(progress_line("m", 60'000'000, 100'000'000, 40'000'000, 2, 120),
            "m  60% [############        ] 60.0 MB of 100 MB, 10.0 MB/s, 4.00 s left");
  EXPECT_EQ(progress_line("m", 2000, 0, 0, 1, 120), "m 2.00 kB, 2.00 kB/s");
  EXPECT_EQ(progress_line("m", 0, 100, 0, 0, 120), "m   0% [                    ] 0 B of 100 B");
}

TEST(Progress, ANoteStandsInPlaceOfBarAndRate) {
  EXPECT_EQ(progress_line("tuning", 12, 48, 0, 6, 80, ProgressUnit::kCount, "loss 1.25"),
            "tuning  25% 12 of 48, 18.0 s left, loss 1.25");
}

TEST(Progress, IsCompleteOnlyWhenComplete) {
  EXPECT_NE(progress_line("m", 99'999, 100'000, 0, 1, 120).find(" 99% "), std::string::npos);
  EXPECT_NE(progress_line("m", 100'000, 100'000, 0, 1, 120).find("100% "), std::string::npos);
  EXPECT_NE(progress_line("m", 200'000, 100'000, 0, 1, 120).find("100% "), std::string::npos);
}

TEST(Progress, FitsTheTerminal) {
  EXPECT_EQ(progress_line("a long label", 1, 2, 0, 1, 10).size(), 9U);
  EXPECT_EQ(progress_line("a long label", 1, 2, 0, 1, 0), "");
}

TEST(Progress, IsSilentWithoutATerminal) {
  testing::internal::CaptureStderr();  // a file
  {
    Progress progress("m", 100);
    progress.update(50);
    progress.update(100);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_FALSE(wants_color(-1));
}

}  // namespace
}  // namespace hone
