// What the kernels of the update rules are told: one step of an optimizer over a run of weights.
// SPDX-License-Identifier: Apache-2.0
//
// All are element by element and use single multiplications, additions, divisions and square roots,
// each rounded once: the bits are the same on every instruction set, and whatever the split of a
// tensor into runs (at multiples of the block).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hone::kernels {

// State of several numbers a weight lies block after block of this many weights, so that the state
// of a run of weights is one run of bytes.
inline constexpr std::size_t kUpdateBlock = 256;

// What every step has; n weights and n gradients that do not overlap.
struct UpdateRun {
  std::span<float> weights;
  std::span<const float> gradient;
  float gradient_scale = 1.0f;  // g = gradient_scale * gradient
  float rate = 0.0f;            // the learning rate, corrections included
  float keep = 1.0f;            // weights are multiplied by it first: 1 - rate * decay
};

// b = momentum b + g;  w = keep w - rate (nesterov ? g + momentum b : b). Without state b = g.
struct MomentumTask {
  UpdateRun run;
  std::span<float> state;  // n, or empty
  float momentum = 0.0f;
  float coupled_decay = 0.0f;  // g += coupled_decay w first (L2 regularization)
  bool nesterov = false;
};

// u = beta1 m + (1 - beta1) g;  w = keep w - rate sign(u);  m = beta2 m + (1 - beta2) g.
struct SignTask {
  UpdateRun run;
  std::span<float> state;  // n
  float beta1 = 0.9f, one_minus_beta1 = 0.1f;
  float beta2 = 0.99f, one_minus_beta2 = 0.01f;
};

// m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
// w = keep w - rate m / (root_scale sqrt(v) + epsilon).
struct AdamTask {
  UpdateRun run;
  std::span<float> state;  // for each block 256 m, then 256 v; the last block is whole, too
  float beta1 = 0.9f, one_minus_beta1 = 0.1f;
  float beta2 = 0.999f, one_minus_beta2 = 0.001f;
  float root_scale = 1.0f;  // 1 / sqrt(1 - beta2^t)
  float epsilon = 1e-8f;
};

// A block of 256 weights' moments in 8 bits each: 520 bytes.
struct Adam8Block {
  float first_scale;                // the largest |m| of the block
  float second_scale;               // the largest v of the block
  std::int8_t first[kUpdateBlock];  // codes of m / first_scale
  std::uint8_t second[kUpdateBlock];
};
static_assert(sizeof(Adam8Block) == 2 * kUpdateBlock + 8);

// The same, the moments rounded to 8 bits after each step.
// Map "dynamic": a code is a distance in the bits of x + c, 16 codes an octave, c = 1/240 for the
// 127 magnitudes of m and 1/61680 for the 255 of v, which makes 1 the last code: a logarithmic map
// with gradual underflow. Map "linear": 127 equal steps of |m|, 255 of sqrt(v).
// v > 0 never gets code 0: a zero below the root would make the step unbounded.
struct Adam8Task {
  AdamTask adam;               // its state is not used
  std::span<std::byte> state;  // Adam8Block for each block, the last one whole; 4-byte aligned
  std::uint32_t step = 1;      // makes the rounding of each step another one
  bool linear = false;
  bool stochastic = true;  // round up with the probability of the rest, by a hash of the weight's
                           // and the gradient's bits and the step; else to nearest
};

}  // namespace hone::kernels
