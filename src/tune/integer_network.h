// LeNet-5 that runs and learns in integers (Sugiura & Matsutani 2025, "ElasticZO-INT8", arXiv
// 2501.04287): pairs of int8 forward passes whose losses are only compared, and NITI's int8
// backpropagation for the last layers. Not one floating-point instruction between image and update.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "tune/integer_arithmetic.h"

namespace hone::tune::integer {

// Without biases, as in NITI: 107,550 parameters.
inline constexpr std::size_t kLayers = 5;

struct IntegerOptions {
  std::size_t cut = kLayers;   // layers by pairs of passes; the last one or two learn backwards
  std::int32_t largest = 15;   // of the probe, of 127
  std::int32_t zeros = 21627;  // part of the probe that is 0, times 2^16
  std::int32_t bits = 3;       // of a step of the head
  std::int32_t tail_bits = 2;  // of the largest step of a tail's layer
  std::uint64_t seed = 1;
};

class IntegerLeNet {
 public:
  explicit IntegerLeNet(const IntegerOptions& options);

  // One step on images (N, 784) of 0 … 127, meaning m 2^-7. Returns the sign of L+ - L-: of 0 the
  // head stays.
  std::int32_t step(std::span<const std::int8_t> images, std::span<const std::int32_t> targets);
  // How many of the images are given their target.
  std::int64_t right(std::span<const std::int8_t> images, std::span<const std::int32_t> targets);
  // The loss times 2^10 in bits, summed; unperturbed.
  std::int64_t loss(std::span<const std::int8_t> images, std::span<const std::int32_t> targets);

  void set_steps(std::int32_t zeros, std::int32_t bits, std::int32_t tail_bits) {
    options_.zeros = zeros;
    options_.bits = bits;
    options_.tail_bits = tail_bits;
  }
  std::span<std::int8_t> weights(std::size_t layer) { return weights_[layer]; }
  std::int64_t parameters() const;
  // Bytes of weights and of everything that steps have needed so far.
  std::int64_t bytes() const;

 private:
  Probe probe(std::size_t layer, std::size_t row) const;
  void pack(std::size_t layer, std::int32_t sign);
  void convolve(std::size_t layer, std::span<const std::int8_t> in, std::size_t images);
  void multiply(std::size_t layer, std::span<const std::int8_t> in, std::size_t rows);
  void finish(std::size_t layer, bool cut_below_zero);
  void forward(std::span<const std::int8_t> images, std::int32_t sign);
  void backward(std::span<const std::int32_t> targets);
  void step_tail();

  IntegerOptions options_;
  std::uint32_t step_ = 0;
  std::array<std::vector<std::int8_t>, kLayers> weights_;
  std::array<std::int32_t, kLayers> exponents_{};         // of the weights
  std::array<std::vector<std::int8_t>, kLayers> values_;  // of each layer, after pooling
  std::array<std::int32_t, kLayers> value_exponents_{};
  std::vector<std::int32_t> packed_;   // one layer's weights, perturbed
  std::vector<std::int16_t> patches_;  // of one image, or of eight rows
  std::vector<std::int32_t> sums_;     // of one image, before pooling
  std::vector<std::int32_t> wide_;     // of a layer, before rounding
  std::vector<std::int8_t> probe_;     // of one row of weights
  std::vector<std::int8_t> error_, error_below_;
  std::array<std::vector<std::int32_t>, kLayers> gradients_;  // of the tail, of both passes
};

}  // namespace hone::tune::integer
