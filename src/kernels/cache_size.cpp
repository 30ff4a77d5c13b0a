// Reads cache sizes from sysfs, once.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cache_size.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace hone::kernels {
namespace {

struct CacheSizes {
  std::size_t last = 0;
  std::size_t second = 0;
};

CacheSizes read_sizes() {
  CacheSizes sizes;
  for (int index = 0; index < 8; ++index) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    std::ifstream size_file(folder + "size"), level_file(folder + "level");
    std::size_t bytes = 0;
    char unit = ' ';
    int level = 0;
    if (!(size_file >> bytes)) continue;  // "266240K"
    size_file >> unit;
    level_file >> level;
    if (unit == 'K') bytes <<= 10;
    if (unit == 'M') bytes <<= 20;
    sizes.last = std::max(sizes.last, bytes);
    if (level == 2) sizes.second = bytes;
  }
  if (sizes.last == 0) sizes.last = std::size_t{32} << 20;
  if (sizes.second == 0) sizes.second = std::size_t{1} << 20;
  return sizes;
}

const CacheSizes& cache_sizes() {
  static const CacheSizes sizes = read_sizes();
  return sizes;
}

}  // namespace

std::size_t last_level_cache_bytes() { return cache_sizes().last; }

std::size_t private_cache_bytes() { return cache_sizes().second; }

}  // namespace hone::kernels
