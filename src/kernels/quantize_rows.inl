// Rows of activations to 8 bit integers with a scale for each 32, alone and behind an RMS norm.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa/math.h"
#include "kernels/isa/row.h"

namespace hone::kernels::HONE_ISA_NAMESPACE {
namespace {

constexpr std::size_t kBlock = 32;
constexpr std::size_t kBlockVectors = kBlock / kLanes;

// Blocks whose largest magnitude is below 2^-100 become zeros: 127 / max would overflow.
constexpr float kSmallest = 0x1p-100f;

// One block of 32: load(j) gives its vector j. The same operations in the same precision on every
// instruction set, and an exact integer sum, so the bits are the same too.
template <typename Load>
HWY_INLINE void quantize_block(Load load, std::int8_t* codes, float* scale, float* sum) {
  const I32 di;
  const hn::Rebind<std::int8_t, F32> d8;
  VecF32 largest = hn::Abs(load(0));
  for (std::size_t j = 1; j < kBlockVectors; ++j) {
    largest = hn::Max(largest, hn::Abs(load(j)));
  }
  const float magnitude = max_of_lanes(largest);
  const bool tiny = magnitude < kSmallest;
  const VecF32 inverse = splat(tiny ? 0.0f : 127.0f / magnitude);
  const VecF32 magic = splat(kRoundMagic);
  const VecI32 magic_bits = hn::BitCast(di, magic);
  VecI32 total = hn::Zero(di);
  for (std::size_t j = 0; j < kBlockVectors; ++j) {
    const VecF32 rounded = hn::Add(hn::Mul(load(j), inverse), magic);
    const VecI32 code = hn::Sub(hn::BitCast(di, rounded), magic_bits);
    total = hn::Add(total, code);
    hn::StoreU(hn::DemoteTo(d8, code), d8, codes + j * kLanes);
  }
  const std::int32_t code_sum = hn::GetLane(hn::SumOfLanes(di, total));
  *scale = tiny ? 0.0f : magnitude / 127.0f;
  *sum = *scale * static_cast<float>(code_sum);
}

// load(i) gives the vector that begins at element i, load_rest(i, count) one that is zero behind.
template <typename Load, typename LoadRest>
HWY_INLINE void quantize(std::size_t size, std::span<std::int8_t> codes, std::span<float> scales,
                         std::span<float> sums, Load load, LoadRest load_rest) {
  const F32 d;
  std::size_t block = 0;
  for (; (block + 1) * kBlock <= size; ++block) {
    const std::size_t begin = block * kBlock;
    quantize_block([load, begin](std::size_t j) { return load(begin + j * kLanes); },
                   codes.data() + begin, &scales[block], &sums[block]);
  }
  for (; block < scales.size(); ++block) {
    const std::size_t begin = block * kBlock;
    const auto padded = [=](std::size_t j) {
      const std::size_t from = begin + j * kLanes;
      if (from + kLanes <= size) return load(from);
      return from < size ? load_rest(from, size - from) : hn::Zero(d);
    };
    quantize_block(padded, codes.data() + begin, &scales[block], &sums[block]);
  }
}

}  // namespace

void quantize_row(std::span<const float> x, std::span<std::int8_t> codes, std::span<float> scales,
                  std::span<float> sums) {
  const float* row = x.data();
  quantize(
      x.size(), codes, scales, sums, [row](std::size_t i) { return hn::LoadU(F32(), row + i); },
      [row](std::size_t i, std::size_t rest) { return load_first(row + i, rest); });
}

void norm_quantize_row(std::span<const float> x, std::span<const float> weight, float epsilon,
                       std::span<std::int8_t> codes, std::span<float> scales,
                       std::span<float> sums) {
  const float* row = x.data();
  const float* gain = weight.data();
  const VecF32 factor = splat(inverse_rms(row, x.size(), epsilon));
  quantize(
      x.size(), codes, scales, sums,
      [=](std::size_t i) {
        const F32 d;
        return hn::Mul(hn::Mul(hn::LoadU(d, row + i), factor), hn::LoadU(d, gain + i));
      },
      [=](std::size_t i, std::size_t rest) {
        return hn::Mul(hn::Mul(load_first(row + i, rest), factor), load_first(gain + i, rest));
      });
}

}  // namespace hone::kernels::HONE_ISA_NAMESPACE
