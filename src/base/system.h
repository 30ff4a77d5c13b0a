// What the machine has and what of it this process may use: cores, memory, caches.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hone {

// Logical cores that this process may keep busy: its affinity mask, and the processor time that its
// control group allows, rounded up. At least 1.
int usable_cores();

// Bytes. `total` and `available` take the control group's limit into account.
struct MemoryInfo {
  std::int64_t total = 0;
  std::int64_t available = 0;
};
MemoryInfo memory_info();

// Bytes of this process that are in memory (VmRSS) and their highest count so far (VmHWM).
struct ResidentMemory {
  std::int64_t current = 0;
  std::int64_t peak = 0;
};
ResidentMemory resident_memory();
// Makes the peak the current count, so that a phase can be measured alone. False if refused.
bool reset_peak_memory();

// Bytes; 0 where unknown. Caches of the first core; `l3` is shared by several.
struct CpuInfo {
  std::string name;       // "AMD EPYC 9R14"
  int logical_cores = 0;  // of the machine, not of this process
  std::int64_t l1d = 0;
  std::int64_t l2 = 0;
  std::int64_t l3 = 0;
  std::vector<std::string> flags;  // those that kernels could use, as /proc/cpuinfo spells them
  bool has(const std::string& flag) const;
};
CpuInfo cpu_info();

// Where models and measurements are kept: $HONE_CACHE, $XDG_CACHE_HOME/hone or ~/.cache/hone.
// Not created; empty when there is no home either.
std::string cache_folder();

namespace system_detail {  // the parsers, on text, for the tests
// cgroup v2's cpu.max ("150000 100000" or "max 100000") as cores, rounded up.
std::optional<int> cores_of_quota(const std::string& cpu_max);
// "VmRSS:   123 kB" of a /proc text, in bytes.
std::optional<std::int64_t> kilobytes_after(const std::string& text, const std::string& key);
// "48K", "2M" of sysfs, in bytes.
std::int64_t size_with_unit(const std::string& text);
}  // namespace system_detail

}  // namespace hone
