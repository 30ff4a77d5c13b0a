// SPDX-License-Identifier: Apache-2.0
#include "quant/minimums.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "quant/blocks.h"

namespace hone::quant {
namespace {

constexpr std::size_t kGroups = 8;  // blocks of 32 in a block of Q4_K and Q5_K
constexpr float kMostMinimum = 63;  // 6 bits

template <typename Block>
Block load(std::span<const std::byte> bytes, std::size_t index) {
  Block block;
  std::memcpy(&block, bytes.data() + index * sizeof(Block), sizeof(Block));
  return block;
}

template <typename Block>
void store(const Block& block, std::span<std::byte> bytes, std::size_t index) {
  std::memcpy(bytes.data() + index * sizeof(Block), &block, sizeof(Block));
}

void shift(BlockQ4_1& block, float by) {
  block.minimum = f32_to_f16(f16_to_f32(block.minimum) + by);
}
void shift(BlockQ5_1& block, float by) {
  block.minimum = f32_to_f16(f16_to_f32(block.minimum) + by);
}

template <typename Block>
void shift_same(std::span<const std::byte> row, std::span<const float> shifts,
                std::span<std::byte> out) {
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    auto block = load<Block>(row, i);
    // A zero would still turn a minimum of -0 into 0.
    if (shifts[i] != 0) shift(block, shifts[i]);
    store(block, out, i);
  }
}

// scale * (q - 8) = scale * q + (-8 * scale): a power of two, so f16 holds it exactly.
void shift_q4_0(std::span<const std::byte> row, std::span<const float> shifts,
                std::span<std::byte> out) {
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    const auto from = load<BlockQ4_0>(row, i);
    BlockQ4_1 to{from.scale, f32_to_f16(-8 * f16_to_f32(from.scale) + shifts[i]), {}};
    std::memcpy(to.low, from.low, sizeof to.low);
    store(to, out, i);
  }
}

void shift_q5_0(std::span<const std::byte> row, std::span<const float> shifts,
                std::span<std::byte> out) {
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    const auto from = load<BlockQ5_0>(row, i);
    BlockQ5_1 to{from.scale, f32_to_f16(-16 * f16_to_f32(from.scale) + shifts[i]), {}, {}};
    std::memcpy(to.low, from.low, sizeof to.low);
    std::memcpy(to.high, from.high, sizeof to.high);
    store(to, out, i);
  }
}

// The minima of a super-block as multiples m of -unit.
struct Minimums {
  std::uint16_t unit = 0;  // f16
  std::array<std::uint8_t, kGroups> multiples{};
  double error = 0;  // squared, summed over the groups
};

Minimums rounded(std::uint16_t unit, const std::array<float, kGroups>& offsets) {
  Minimums out;
  out.unit = unit;
  const float size = f16_to_f32(unit);
  for (std::size_t j = 0; j < kGroups; ++j) {
    const float wished = size != 0 ? std::nearbyint(-offsets[j] / size) : 0;
    const float multiple = std::clamp(wished, 0.0f, kMostMinimum);
    out.multiples[j] = static_cast<std::uint8_t>(multiple);
    const double gap = static_cast<double>(offsets[j]) + static_cast<double>(size * multiple);
    out.error += gap * gap;
  }
  return out;
}

// The unit as it is first, so that what fits it stays; then finer and coarser ones.
Minimums fit(std::uint16_t unit, const std::array<float, kGroups>& offsets) {
  Minimums best = rounded(unit, offsets);
  // A negative unit serves a super-block whose minima are all above zero.
  const float lowest = *std::ranges::min_element(offsets);
  const float highest = *std::ranges::max_element(offsets);
  for (const float end : {lowest, highest}) {
    for (float count = 32; count <= kMostMinimum + 2; count += 0.5f) {
      const Minimums other = rounded(f32_to_f16(-end / count), offsets);
      if (other.error < best.error) best = other;
    }
  }
  return best;
}

void pack_minimums(std::uint8_t (&packed)[12], const std::array<std::uint8_t, kGroups>& multiples) {
  std::array<ScalePair, kGroups> pairs;
  for (int j = 0; j < static_cast<int>(kGroups); ++j) {
    pairs[static_cast<std::size_t>(j)] = unpack_scale_pair(packed, j);
    pairs[static_cast<std::size_t>(j)].minimum = multiples[static_cast<std::size_t>(j)];
  }
  for (std::size_t j = 0; j < 4; ++j) {
    const ScalePair low = pairs[j];
    const ScalePair high = pairs[j + 4];
    packed[j] = static_cast<std::uint8_t>(low.scale | (high.scale >> 4) << 6);
    packed[j + 4] = static_cast<std::uint8_t>(low.minimum | (high.minimum >> 4) << 6);
    packed[j + 8] = static_cast<std::uint8_t>((high.scale & 15) | (high.minimum & 15) << 4);
  }
}

template <typename Block>
float offset_of(const Block& block, std::size_t j) {
  const ScalePair pair = unpack_scale_pair(block.scales, static_cast<int>(j));
  return -(f16_to_f32(block.minimum) * static_cast<float>(pair.minimum));
}

template <typename Block>
void shift_super(std::span<const std::byte> row, std::span<const float> shifts,
                 std::span<std::byte> out) {
  for (std::size_t i = 0; i < shifts.size() / kGroups; ++i) {
    auto block = load<Block>(row, i);
    std::array<float, kGroups> offsets;
    bool moved = false;
    for (std::size_t j = 0; j < kGroups; ++j) {
      offsets[j] = offset_of(block, j) + shifts[i * kGroups + j];
      moved = moved || shifts[i * kGroups + j] != 0;
    }
    if (moved) {
      const Minimums fitted = fit(block.minimum, offsets);
      block.minimum = fitted.unit;
      pack_minimums(block.scales, fitted.multiples);
    }
    store(block, out, i);
  }
}

template <typename Block>
std::uint16_t scale_of(const Block& block, std::size_t j) {
  const ScalePair pair = unpack_scale_pair(block.scales, static_cast<int>(j));
  return f32_to_f16(f16_to_f32(block.scale) * static_cast<float>(pair.scale));
}

// Low four bits of weight l of group j.
std::uint8_t low_bits(const std::uint8_t (&quants)[128], std::size_t j, std::size_t l) {
  const std::uint8_t byte = quants[j / 2 * 32 + l];
  return j % 2 == 0 ? byte & 15 : byte >> 4;
}

void pack_low(const std::uint8_t (&quants)[128], std::size_t j, std::uint8_t (&low)[16]) {
  for (std::size_t l = 0; l < 16; ++l) {
    low[l] = static_cast<std::uint8_t>(low_bits(quants, j, l) | low_bits(quants, j, l + 16) << 4);
  }
}

void split_q4_k(std::span<const std::byte> row, std::span<const float> shifts,
                std::span<std::byte> out) {
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    const auto from = load<BlockQ4_K>(row, i / kGroups);
    const std::size_t j = i % kGroups;
    BlockQ4_1 to{scale_of(from, j), f32_to_f16(offset_of(from, j) + shifts[i]), {}};
    pack_low(from.quants, j, to.low);
    store(to, out, i);
  }
}

void split_q5_k(std::span<const std::byte> row, std::span<const float> shifts,
                std::span<std::byte> out) {
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    const auto from = load<BlockQ5_K>(row, i / kGroups);
    const std::size_t j = i % kGroups;
    BlockQ5_1 to{scale_of(from, j), f32_to_f16(offset_of(from, j) + shifts[i]), {}, {}};
    pack_low(from.quants, j, to.low);
    for (std::size_t l = 0; l < kShiftBlock; ++l) {
      const int bit = from.high[l] >> j & 1;
      to.high[l / 8] = static_cast<std::uint8_t>(to.high[l / 8] | bit << (l % 8));
    }
    store(to, out, i);
  }
}

using Shift = void (*)(std::span<const std::byte>, std::span<const float>, std::span<std::byte>);
struct Pair {
  DType from;
  DType to;
  Shift shift;
};
constexpr std::array kPairs = {Pair{DType::kQ4_0, DType::kQ4_1, shift_q4_0},
                               Pair{DType::kQ4_1, DType::kQ4_1, shift_same<BlockQ4_1>},
                               Pair{DType::kQ5_0, DType::kQ5_1, shift_q5_0},
                               Pair{DType::kQ5_1, DType::kQ5_1, shift_same<BlockQ5_1>},
                               Pair{DType::kQ4_K, DType::kQ4_K, shift_super<BlockQ4_K>},
                               Pair{DType::kQ5_K, DType::kQ5_K, shift_super<BlockQ5_K>},
                               Pair{DType::kQ4_K, DType::kQ4_1, split_q4_k},
                               Pair{DType::kQ5_K, DType::kQ5_1, split_q5_k}};

const Pair* find_pair(DType from, DType to) {
  const auto at = std::ranges::find_if(
      kPairs, [&](const Pair& pair) { return pair.from == from && pair.to == to; });
  return at == kPairs.end() ? nullptr : &*at;
}

}  // namespace

std::optional<DType> shifted_type(DType from) {
  const auto at = std::ranges::find(kPairs, from, &Pair::from);
  if (at == kPairs.end()) return std::nullopt;
  return at->to;  // the first of a type's pairs
}

bool can_shift(DType from, DType to) { return find_pair(from, to) != nullptr; }

void shift_minimums(DType from, DType to, std::span<const std::byte> row,
                    std::span<const float> shifts, std::span<std::byte> out) {
  const Pair* pair = find_pair(from, to);
  assert(pair != nullptr);
  [[maybe_unused]] const auto weights = static_cast<std::int64_t>(shifts.size() * kShiftBlock);
  assert(row.size() == static_cast<std::size_t>(dtype_bytes(from, weights)));
  assert(out.size() == static_cast<std::size_t>(dtype_bytes(to, weights)));
  pair->shift(row, shifts, out);
}

}  // namespace hone::quant
