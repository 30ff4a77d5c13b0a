// SPDX-License-Identifier: Apache-2.0
#include "feedback/directions.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>
#include <string>

namespace hone::feedback {
namespace {

constexpr std::size_t kGranule = kDirectionGranule;

void rademacher(const DirectionKey& key, std::uint64_t granule, std::span<float> out) {
  const auto words = direction_draw(key, static_cast<std::uint32_t>(granule));
  for (std::size_t i = 0; i < out.size(); ++i) {
    // The bit becomes the sign of 1.
    const std::uint32_t bit = (words[i / 32] >> (i % 32)) << 31;
    out[i] = std::bit_cast<float>(bit | std::uint32_t{0x3F800000});
  }
}

// Box and Muller 1958: two uniforms of a draw give two elements.
void gaussian(const DirectionKey& key, std::uint64_t granule, std::span<float> out) {
  for (std::size_t first = 0; first < out.size(); first += 4) {
    const auto words =
        direction_draw(key, static_cast<std::uint32_t>(granule * (kGranule / 4) + first / 4));
    std::array<float, 4> values{};
    for (std::size_t pair = 0; pair < 2; ++pair) {
      // In (0, 1]: its logarithm is finite.
      const float u = (static_cast<float>(words[2 * pair] >> 8) + 1.0F) * 0x1p-24F;
      const float angle = 2.0F * std::numbers::pi_v<float> *
                          (static_cast<float>(words[2 * pair + 1] >> 8) * 0x1p-24F);
      const float radius = std::sqrt(-2.0F * std::log(u));
      values[2 * pair] = radius * std::cos(angle);
      values[2 * pair + 1] = radius * std::sin(angle);
    }
    const std::size_t count = std::min<std::size_t>(4, out.size() - first);
    std::copy_n(values.begin(), count, out.begin() + static_cast<std::ptrdiff_t>(first));
  }
}

}  // namespace

Result<Noise> noise_named(std::string_view name) {
  if (name == "rademacher") return Noise::kRademacher;
  if (name == "gaussian") return Noise::kGaussian;
  return Error{ErrorCode::kInvalidArgument, "there is no such noise", "--noise",
               std::string(name),           "rademacher or gaussian", ""};
}

void fill_direction(Noise noise, const DirectionKey& key, std::int64_t begin,
                    std::span<float> out) {
  for (std::size_t at = 0; at < out.size(); at += kGranule) {
    const std::uint64_t granule = static_cast<std::uint64_t>(begin) / kGranule + at / kGranule;
    const auto part = out.subspan(at, std::min(kGranule, out.size() - at));
    if (noise == Noise::kRademacher) {
      rademacher(key, granule, part);
    } else {
      gaussian(key, granule, part);
    }
  }
}

void add_direction(Noise noise, const DirectionKey& key, std::int64_t begin, float factor,
                   std::span<float> to) {
  std::array<float, kGranule> part{};
  for (std::size_t at = 0; at < to.size(); at += kGranule) {
    const std::size_t count = std::min(kGranule, to.size() - at);
    fill_direction(noise, key, begin + static_cast<std::int64_t>(at), std::span(part).first(count));
    for (std::size_t i = 0; i < count; ++i) to[at + i] += factor * part[i];
  }
}

}  // namespace hone::feedback
