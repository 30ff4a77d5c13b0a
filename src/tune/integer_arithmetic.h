// Arithmetic of networks that learn in integers: int8 mantissas with one exponent a tensor, after
// NITI (Wang et al. 2020, arXiv 2009.13108) and ElasticZO-INT8 (Sugiura & Matsutani 2025, arXiv
// 2501.04287). There is no floating-point number in it; a test reads the machine code for that.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace hone::tune::integer {

// Bits that the magnitude of a number takes: 0 of 0, 7 of 127.
std::int32_t bits_of(std::int64_t magnitude);
// Of the largest magnitude.
std::int32_t bits_of_largest(std::span<const std::int32_t> values);

// value / 2^shift, rounded without a random number: the upper half of the bits that are cut off is
// compared with the lower half, and a larger one rounds away from zero (NITI, section 3.2). With an
// odd `shift` the lower half is doubled, so that both are equally wide.
std::int32_t rounded(std::int32_t value, std::int32_t shift);

// out[i] = rounded(values[i], shift), saturated at +-127.
void round_all(std::span<const std::int32_t> values, std::int32_t shift,
               std::span<std::int8_t> out);

// values[i] - steps[i], saturated at +-127.
void subtract_all(std::span<std::int8_t> values, std::span<const std::int8_t> steps);

// A probe: uniform in -largest … largest, and 0 with probability zeros / 2^16 besides. Element i of
// tensor `tensor` at step `step`, by Philox: the same whenever it is asked for.
struct Probe {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t tensor = 0;
  std::int32_t largest = 15;
  std::int32_t zeros = 0;
};
void fill_probe(const Probe& probe, std::span<std::int8_t> out);

// theta + sign z, saturated.
std::int8_t moved(std::int8_t theta, std::int8_t z, std::int32_t sign);

// One step of the head: theta -= sign z, z rounded to `bits` bits of magnitude first: the learning
// rate is a number of bits.
void step_against(std::span<std::int8_t> theta, std::span<const std::int8_t> z, std::int32_t sign,
                  std::int32_t largest, std::int32_t bits);

// log2 of a number that is 2^16 times as large, times 2^10; 2^(-x / 2^10) times 2^16, x >= 0. Both
// quadratic between powers of two, exact there and in the middle: errors below 0.009 and, of the
// power, 0.003 of it.
std::int64_t log2_of(std::int64_t scaled);
std::int64_t power_of(std::int64_t x);

// Cross-entropies in bits, times 2^10, of logits m 2^exponent (N, V), summed.
std::int64_t loss_of(std::span<const std::int8_t> logits, std::int32_t exponent,
                     std::int64_t classes, std::span<const std::int32_t> targets);

// The gradient of each to its logits: softmax minus one at the target, times 127.
void loss_gradient(std::span<const std::int8_t> logits, std::int32_t exponent, std::int64_t classes,
                   std::span<const std::int32_t> targets, std::span<std::int8_t> out);

}  // namespace hone::tune::integer
