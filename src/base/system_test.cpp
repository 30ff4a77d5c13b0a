// What the machine is said to have: the parsers on kept texts, the rest on this machine.
// SPDX-License-Identifier: Apache-2.0
#include "base/system.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

namespace hone {
namespace {

using system_detail::cores_of_quota;
using system_detail::kilobytes_after;
using system_detail::size_with_unit;

TEST(System, QuotaInCores) {
  EXPECT_EQ(cores_of_quota("150000 100000\n"), 2);
  EXPECT_EQ(cores_of_quota("200000 100000\n"), 2);
  EXPECT_EQ(cores_of_quota("10000 100000\n"), 1);
  EXPECT_EQ(cores_of_quota("max 100000\n"), std::nullopt);
  EXPECT_EQ(cores_of_quota("-1\n100000\n"), std::nullopt);  // v1: no limit
  EXPECT_EQ(cores_of_quota("100000 0"), std::nullopt);
  EXPECT_EQ(cores_of_quota(""), std::nullopt);
}

TEST(System, KilobytesOfAKeyAtALineStart) {
  const std::string text = "XVmRSS: 1 kB\nVmHWM:\t  200 kB\nVmRSS:\t  100 kB\n";
  EXPECT_EQ(kilobytes_after(text, "VmRSS:"), 100 * 1024);
  EXPECT_EQ(kilobytes_after(text, "VmHWM:"), 200 * 1024);
  EXPECT_EQ(kilobytes_after(text, "VmSwap:"), std::nullopt);
  EXPECT_EQ(kilobytes_after("VmRSS: many", "VmRSS:"), std::nullopt);
}

TEST(System, SizesOfCaches) {
  EXPECT_EQ(size_with_unit("48K\n"), 48 * 1024);
  EXPECT_EQ(size_with_unit("2M"), 2 * 1024 * 1024);
  EXPECT_EQ(size_with_unit("512"), 512);
  EXPECT_EQ(size_with_unit(""), 0);
}

TEST(System, MemoryIsPlausible) {
  const MemoryInfo info = memory_info();
  EXPECT_GT(info.total, std::int64_t{64} << 20);
  EXPECT_GT(info.available, 0);
  EXPECT_LE(info.available, info.total);
}

TEST(System, PeakFollowsATouchedAllocationAndResets) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "this sanitizer holds memory back";
#endif
  constexpr std::size_t kBytes = 64 << 20;
  const ResidentMemory before = resident_memory();
  {
    std::vector<char> touched(kBytes, 1);
    EXPECT_GE(resident_memory().current, before.current + static_cast<std::int64_t>(kBytes) / 2);
    EXPECT_EQ(touched[kBytes / 2], 1);
  }
  const ResidentMemory after = resident_memory();
  EXPECT_GE(after.peak, before.current + static_cast<std::int64_t>(kBytes) / 2);
  if (!reset_peak_memory()) GTEST_SKIP() << "this system does not let the peak be reset";
  EXPECT_LT(resident_memory().peak, after.peak);
}

TEST(System, ProcessorHasANameAndCores) {
  const CpuInfo info = cpu_info();
  EXPECT_GE(info.logical_cores, usable_cores());
  EXPECT_FALSE(info.has("no such flag"));
#if defined(__x86_64__)
  EXPECT_FALSE(info.name.empty());
#endif
}

TEST(System, CacheFolderByPriority) {
  const auto old_home = std::getenv("HOME");
  const std::string home = old_home == nullptr ? "" : old_home;
  setenv("HONE_CACHE", "/x/own", 1);
  setenv("XDG_CACHE_HOME", "/x/cache", 1);
  setenv("HOME", "/x/home", 1);
  EXPECT_EQ(cache_folder(), "/x/own");
  unsetenv("HONE_CACHE");
  EXPECT_EQ(cache_folder(), "/x/cache/hone");
  unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(cache_folder(), "/x/home/.cache/hone");
  unsetenv("HOME");
  EXPECT_EQ(cache_folder(), "");
  if (old_home != nullptr) setenv("HOME", home.c_str(), 1);
}

}  // namespace
}  // namespace hone
