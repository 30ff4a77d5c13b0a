// Adding a constant to every weight of a block by its minimum alone: codes and scales stay.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "base/dtype.h"

namespace hone::quant {

// Weights that share a minimum in all of these formats.
inline constexpr std::size_t kShiftBlock = 32;

// What a row becomes when its minima are shifted: the type itself where it has minima (Q4_1, Q5_1,
// Q4_K, Q5_K), the type with minima that holds it without loss (Q4_0: Q4_1, Q5_0: Q5_1); nothing
// for others.
std::optional<DType> shifted_type(DType from);

// Whether shift_minimums takes the pair: those of shifted_type, and Q4_K to Q4_1, Q5_K to Q5_1.
bool can_shift(DType from, DType to);

// Writes the row of type `from` with shifts[i] added to weights 32 i .. 32 i + 31 as type `to`.
// What is rounded: a minimum to f16 (Q4_1, Q5_1), of a K format also scale * sub-scale to f16; in
// Q4_K and Q5_K minima are 6-bit multiples of one f16 for 8 blocks, chosen anew, and none is above
// zero. A shift of zero changes no weight where the type stays, and where it becomes one with f16
// minima out of Q4_0 or Q5_0. Sizes are the caller's promise (asserted).
void shift_minimums(DType from, DType to, std::span<const std::byte> row,
                    std::span<const float> shifts, std::span<std::byte> out);

}  // namespace hone::quant
