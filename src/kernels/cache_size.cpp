// Reads cache sizes from sysfs, once.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cache_size.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace hone::kernels {
namespace {

constexpr std::size_t kUnknown = std::size_t{32} << 20;

std::size_t read_largest() {
  std::size_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) +
                       "/size");
    std::size_t size = 0;
    char unit = ' ';
    if (!(file >> size)) continue;  // "266240K"
    file >> unit;
    if (unit == 'K') size <<= 10;
    if (unit == 'M') size <<= 20;
    largest = std::max(largest, size);
  }
  return largest > 0 ? largest : kUnknown;
}

}  // namespace

std::size_t last_level_cache_bytes() {
  static const std::size_t bytes = read_largest();
  return bytes;
}

}  // namespace hone::kernels
