// SPDX-License-Identifier: Apache-2.0
#include "tune/integer_arithmetic.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/random.h"

namespace hone::tune::integer {
namespace {

constexpr std::int32_t kMost = 127;
constexpr std::int32_t kFraction = 10;        // bits of fraction of logarithms
constexpr std::int64_t kLog2OfE = 47274;      // times 2^15 (NITI's constant)
constexpr std::int64_t kOne = 1 << 16;        // of powers
constexpr std::int64_t kMostLogit = 1 << 24;  // of a logit in bits, times 2^10

std::int32_t saturated(std::int32_t value) { return std::clamp(value, -kMost, kMost); }

// m 2^exponent nats in bits, times 2^10.
std::int64_t in_bits(std::int8_t m, std::int32_t exponent) {
  const std::int64_t product = std::int64_t{m} * kLog2OfE;  // at most 2^23
  const std::int32_t shift = exponent + kFraction - 15;
  const std::int64_t value = shift >= 0 ? product * (std::int64_t{1} << std::min(shift, 30))
                                        : product >> std::min(-shift, 62);
  return std::clamp(value, -kMostLogit, kMostLogit);
}

std::int64_t largest_of(std::span<const std::int8_t> row, std::int32_t exponent) {
  std::int64_t most = -kMostLogit;
  for (const std::int8_t m : row) most = std::max(most, in_bits(m, exponent));
  return most;
}

}  // namespace

std::int32_t bits_of(std::int64_t magnitude) {
  return static_cast<std::int32_t>(std::bit_width(static_cast<std::uint64_t>(magnitude)));
}

std::int32_t bits_of_largest(std::span<const std::int32_t> values) {
  std::int32_t least = 0, most = 0;
  for (const std::int32_t value : values) {
    least = std::min(least, value);
    most = std::max(most, value);
  }
  return bits_of(std::max(std::int64_t{most}, -std::int64_t{least}));
}

std::int32_t rounded(std::int32_t value, std::int32_t shift) {
  if (shift <= 0) return value;
  const std::int32_t magnitude = value < 0 ? -value : value;
  const std::int32_t cut = magnitude & ((1 << shift) - 1);
  const std::int32_t half = shift / 2;
  const std::int32_t upper = cut >> (shift - (shift + 1) / 2);  // (shift + 1) / 2 bits
  const std::int32_t lower = (cut & ((1 << half) - 1)) << (shift % 2);
  const std::int32_t result = (magnitude >> shift) + (upper > lower ? 1 : 0);
  return value < 0 ? -result : result;
}

void round_all(std::span<const std::int32_t> values, std::int32_t shift,
               std::span<std::int8_t> out) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    out[i] = static_cast<std::int8_t>(saturated(rounded(values[i], shift)));
  }
}

void subtract_all(std::span<std::int8_t> values, std::span<const std::int8_t> steps) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<std::int8_t>(saturated(values[i] - steps[i]));
  }
}

void fill_probe(const Probe& probe, std::span<std::int8_t> out) {
  const auto width = static_cast<std::uint32_t>(2 * probe.largest + 1);
  for (std::size_t at = 0; at < out.size(); at += 8) {
    const auto draws =
        philox({static_cast<std::uint32_t>(at / 8), probe.tensor, 0, probe.step}, probe.seed);
    const std::size_t count = std::min<std::size_t>(8, out.size() - at);
    for (std::size_t i = 0; i < count; ++i) {
      // The upper part of 16 bits times the width is the value, the lower one decides on zero.
      const std::uint32_t product = (draws[i / 2] >> (16 * (i % 2)) & 0xFFFF) * width;
      const bool zero = static_cast<std::int32_t>(product & 0xFFFF) < probe.zeros;
      out[at + i] = static_cast<std::int8_t>(
          zero ? 0 : static_cast<std::int32_t>(product >> 16) - probe.largest);
    }
  }
}

std::int8_t moved(std::int8_t theta, std::int8_t z, std::int32_t sign) {
  return static_cast<std::int8_t>(saturated(theta + sign * z));
}

void step_against(std::span<std::int8_t> theta, std::span<const std::int8_t> z, std::int32_t sign,
                  std::int32_t largest, std::int32_t bits) {
  const std::int32_t shift = std::max(0, bits_of(largest) - bits);
  const std::int32_t most = (1 << bits) - 1;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    theta[i] = static_cast<std::int8_t>(
        saturated(theta[i] - sign * std::clamp(rounded(z[i], shift), -most, most)));
  }
}

std::int64_t log2_of(std::int64_t scaled) {
  const std::int64_t bits = bits_of(scaled) - 1;  // scaled in [2^bits, 2^(bits + 1))
  const std::int64_t y =
      bits >= 16 ? (scaled >> (bits - 16)) - kOne : (scaled << (16 - bits)) - kOne;
  // y (1 + 0.33985 (1 - y)) of log2(1 + y), 2^16 is one.
  const std::int64_t bent = y * (kOne + (22272 * (kOne - y) >> 16)) >> 16;
  return ((bits - 16) << kFraction) + (bent >> (16 - kFraction));
}

std::int64_t power_of(std::int64_t x) {
  const std::int64_t whole = x >> kFraction;
  if (whole > 40) return 0;
  const std::int64_t part = (x & ((1 << kFraction) - 1)) << (16 - kFraction);
  // 1 - 0.67157 x + 0.17157 x^2 of 2^-x.
  const std::int64_t power = kOne - (44012 * part >> 16) + ((11244 * part >> 16) * part >> 16);
  return power >> whole;
}

std::int64_t loss_of(std::span<const std::int8_t> logits, std::int32_t exponent,
                     std::int64_t classes, std::span<const std::int32_t> targets) {
  const auto width = static_cast<std::size_t>(classes);
  std::int64_t total = 0;
  for (std::size_t n = 0; n < targets.size(); ++n) {
    const auto row = logits.subspan(n * width, width);
    const std::int64_t top = largest_of(row, exponent);
    std::int64_t sum = 0;
    for (const std::int8_t m : row) sum += power_of(top - in_bits(m, exponent));
    total += log2_of(sum) + top - in_bits(row[static_cast<std::size_t>(targets[n])], exponent);
  }
  return total;
}

void loss_gradient(std::span<const std::int8_t> logits, std::int32_t exponent, std::int64_t classes,
                   std::span<const std::int32_t> targets, std::span<std::int8_t> out) {
  const auto width = static_cast<std::size_t>(classes);
  for (std::size_t n = 0; n < targets.size(); ++n) {
    const auto row = logits.subspan(n * width, width);
    const auto to = out.subspan(n * width, width);
    const std::int64_t top = largest_of(row, exponent);
    std::int64_t sum = 0;
    for (const std::int8_t m : row) sum += power_of(top - in_bits(m, exponent));
    for (std::size_t v = 0; v < width; ++v) {
      const std::int64_t share =
          (power_of(top - in_bits(row[v], exponent)) * kMost + sum / 2) / sum;
      const bool is_target = static_cast<std::int32_t>(v) == targets[n];
      to[v] = static_cast<std::int8_t>(share - (is_target ? kMost : 0));
    }
  }
}

}  // namespace hone::tune::integer
