// Philox4x32-10: random numbers named by a key and a counter, so that every draw can be replayed
// alone. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace hone {

// Always inlined: kernels call it in every instruction set, and of a function that is shared the
// linker would keep any one.
[[gnu::always_inline]] inline std::array<std::uint32_t, 4> philox(
    std::array<std::uint32_t, 4> counter, std::uint64_t key) {
  std::uint32_t key0 = static_cast<std::uint32_t>(key);
  std::uint32_t key1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key0,
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key1,
               static_cast<std::uint32_t>(product0)};
    key0 += 0x9E3779B9;  // golden ratio
    key1 += 0xBB67AE85;  // sqrt(3) - 1
  }
  return counter;
}

// A random direction of a tensor.
struct DirectionKey {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t direction = 0;
  std::uint32_t tensor = 0;
};

// Draw `index` of a direction. Of Rademacher noise (+1 and -1) it is 128 elements: element
// 128 index + i is negative where bit i % 32 of word i / 32 is set.
[[gnu::always_inline]] inline std::array<std::uint32_t, 4> direction_draw(const DirectionKey& key,
                                                                          std::uint32_t index) {
  return philox({index, key.tensor, key.direction, key.step}, key.seed);
}
inline constexpr std::int64_t kSignsOfDraw = 128;

// A stream of draws keyed by (seed, stream): draw i of stream s is the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  std::uint32_t next_u32() {
    if (used_ == 4) {
      block_ = philox(
          {static_cast<std::uint32_t>(position_), static_cast<std::uint32_t>(position_ >> 32),
           static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
          seed_);
      ++position_;
      used_ = 0;
    }
    return block_[used_++];
  }
  // In [0, 1), 24 bits.
  float uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }
  // In [0, bound), by multiplication; bias below 2^-32 * bound.
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>((std::uint64_t{next_u32()} * bound) >> 32);
  }
  // Mean 0, variance 1: the sum of twelve uniforms would do for tests; this is Box-Muller.
  float normal();

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
  std::uint64_t position_ = 0;
  std::array<std::uint32_t, 4> block_{};
  unsigned used_ = 4;
};

}  // namespace hone
