// Random directions, named by seed, step, direction and tensor: never kept, always made again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/random.h"
#include "base/status.h"

namespace hone::feedback {

// Elements have mean 0 and variance 1, whichever it is. Rademacher's are +1 and -1: an estimate's
// variance is the lower by two of d + 2 (Spall 1992), and 128 of them take one draw of Philox.
enum class Noise : std::uint8_t { kRademacher, kGaussian };
Result<Noise> noise_named(std::string_view name);

// out[i] = element begin + i of the direction: the same for any cut. `begin` is a multiple of
// kDirectionGranule.
inline constexpr std::int64_t kDirectionGranule = kSignsOfDraw;
void fill_direction(Noise noise, const DirectionKey& key, std::int64_t begin, std::span<float> out);

// to[i] += factor * element begin + i.
void add_direction(Noise noise, const DirectionKey& key, std::int64_t begin, float factor,
                   std::span<float> to);

}  // namespace hone::feedback
