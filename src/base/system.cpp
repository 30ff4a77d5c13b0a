// Facts about the machine, out of /proc, /sys and the control group's files. Linux.
// SPDX-License-Identifier: Apache-2.0
#include "base/system.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

namespace hone {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::optional<std::int64_t> number_in(const std::string& text) {
  std::int64_t value = 0;
  std::istringstream stream(text);
  if (stream >> value) return value;
  return std::nullopt;
}

struct ControlGroup {
  std::vector<std::string> unified;  // v2: this group's folder and those above it
  std::string cpu;                   // v1: folders of two controllers
  std::string memory;
};

// /proc/self/cgroup: "0::/a/b" (v2), "4:cpu,cpuacct:/a" (v1). In a container the path may be the
// host's, which is not visible: the mount's root is then the group.
ControlGroup control_group() {
  const std::string root = "/sys/fs/cgroup";
  ControlGroup group;
  group.cpu = root + "/cpu";
  group.memory = root + "/memory";
  std::istringstream lines(text_of("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("0::", 0) != 0) continue;
    for (std::string path = line.substr(3); !path.empty() && path != "/";) {
      group.unified.push_back(root + path);
      path.erase(path.rfind('/'));
    }
  }
  group.unified.push_back(root);
  return group;
}

}  // namespace

namespace system_detail {

std::optional<int> cores_of_quota(const std::string& cpu_max) {
  std::istringstream stream(cpu_max);
  std::int64_t quota = 0;
  std::int64_t period = 0;
  if (!(stream >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return static_cast<int>(std::min<std::int64_t>((quota + period - 1) / period, 1 << 16));
}

std::optional<std::int64_t> kilobytes_after(const std::string& text, const std::string& key) {
  for (std::size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + 1)) {
    if (at != 0 && text[at - 1] != '\n') continue;
    const auto value = number_in(text.substr(at + key.size(), 32));
    if (value) return *value * 1024;
  }
  return std::nullopt;
}

std::int64_t size_with_unit(const std::string& text) {
  std::istringstream stream(text);
  std::int64_t value = 0;
  char unit = ' ';
  if (!(stream >> value)) return 0;
  stream >> unit;
  switch (unit) {
    case 'K': return value << 10;
    case 'M': return value << 20;
    case 'G': return value << 30;
    default: return value;
  }
}

}  // namespace system_detail

using system_detail::cores_of_quota;
using system_detail::kilobytes_after;
using system_detail::size_with_unit;

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) cores = CPU_COUNT(&mask);
  const ControlGroup group = control_group();
  for (const std::string& folder : group.unified) {
    if (const auto quota = cores_of_quota(text_of(folder + "/cpu.max"))) {
      cores = std::min(cores, *quota);
    }
  }
  const std::string old_quota = text_of(group.cpu + "/cpu.cfs_quota_us");
  if (const auto quota = cores_of_quota(old_quota + text_of(group.cpu + "/cpu.cfs_period_us"))) {
    cores = std::min(cores, *quota);
  }
  return std::max(cores, 1);
}

MemoryInfo memory_info() {
  const std::string text = text_of("/proc/meminfo");
  MemoryInfo info;
  info.total = kilobytes_after(text, "MemTotal:").value_or(0);
  info.available = kilobytes_after(text, "MemAvailable:").value_or(info.total);
  const auto limit_by = [&info](const std::string& limit_file, const std::string& usage_file) {
    const auto limit = number_in(text_of(limit_file));  // "max" is no number
    if (!limit || *limit <= 0 || *limit >= info.total) return;
    info.total = *limit;
    const std::int64_t used = number_in(text_of(usage_file)).value_or(0);
    info.available = std::min(info.available, std::max<std::int64_t>(*limit - used, 0));
  };
  const ControlGroup group = control_group();
  for (const std::string& folder : group.unified) {
    limit_by(folder + "/memory.max", folder + "/memory.current");
  }
  limit_by(group.memory + "/memory.limit_in_bytes", group.memory + "/memory.usage_in_bytes");
  return info;
}

ResidentMemory resident_memory() {
  const std::string text = text_of("/proc/self/status");
  return {kilobytes_after(text, "VmRSS:").value_or(0), kilobytes_after(text, "VmHWM:").value_or(0)};
}

bool reset_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5\n" << std::flush;  // proc(5): 5 resets the peak resident set size
  return file.good();
}

bool CpuInfo::has(const std::string& flag) const {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

CpuInfo cpu_info() {
  CpuInfo info;
  info.logical_cores = static_cast<int>(std::thread::hardware_concurrency());
  constexpr std::array kFlags = {
      "avx",         "avx2",        "fma",      "f16c",     "bmi2",       "avx_vnni",
      "avx512f",     "avx512bw",    "avx512dq", "avx512vl", "avx512vbmi", "avx512_vnni",
      "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",   "asimd",
      "asimddp",     "i8mm",        "bf16",     "sve",      "sve2"};
  std::istringstream lines(text_of("/proc/cpuinfo"));
  for (std::string line; std::getline(lines, line) && (info.name.empty() || info.flags.empty());) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    if (key == "model name" && colon + 2 <= line.size()) info.name = line.substr(colon + 2);
    if (key != "flags" && key != "Features") continue;
    std::istringstream words(line.substr(colon + 1));
    for (std::string word; words >> word;) {
      if (std::find(kFlags.begin(), kFlags.end(), word) != kFlags.end()) info.flags.push_back(word);
    }
  }
  for (int index = 0; index < 8; ++index) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    const std::int64_t level = number_in(text_of(folder + "level")).value_or(0);
    const std::string type = text_of(folder + "type");
    const std::int64_t size = size_with_unit(text_of(folder + "size"));
    if (level == 1 && type.rfind("Data", 0) == 0) info.l1d = size;
    if (level == 2) info.l2 = size;
    if (level == 3) info.l3 = size;
  }
  return info;
}

std::string cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);  // NOLINT read before threads that could set it
    return std::string(value == nullptr ? "" : value);
  };
  if (std::string own = variable("HONE_CACHE"); !own.empty()) return own;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache + "/hone";
  if (const std::string home = variable("HOME"); !home.empty()) return home + "/.cache/hone";
  return "";
}

}  // namespace hone
