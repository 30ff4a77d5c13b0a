// Hadamard matrices of the sizes K * 2^n, K one of 1, 12 and 20, and which of them fits where.
// SPDX-License-Identifier: Apache-2.0
//
// H = H_K (x) H_2^n, where H_2^n is Sylvester's, symmetric, and H_12 and H_20 are Paley's first
// construction (J. Math. Phys. 12, 1933) for the primes 11 and 19, which are 3 modulo 4:
// H = I + S, S skew, so H H^T = K I and H is not its own transpose.
#pragma once

#include <cstdint>
#include <span>

namespace hone {

// H_K by rows, +1 and -1. core is 12 or 20; of 1 the matrix (1).
std::span<const std::int8_t> hadamard_signs(int core);

// K of a size K * 2^n; 0 where it is none.
int hadamard_core(std::int64_t size);

// The largest of these sizes that divides `columns`: 1536 = 12 * 128 and 1024 whole, 576 in three
// blocks of 192 = 12 * 16. At least 1.
std::int64_t hadamard_block(std::int64_t columns);

// The block of tokens that begins at `first`: `most`, or the largest power of two that is left.
std::int64_t hadamard_token_block(std::int64_t first, std::int64_t tokens, std::int64_t most);

// Element (row, column) of the matrix of a whole size: slow, for references and tests.
int hadamard_element(std::int64_t size, std::int64_t row, std::int64_t column);

}  // namespace hone
