// What an update rule is: its settings with their sources, its state, and one step of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "optim/settings.h"

namespace hone::optim {

// A tensor as a matrix (rows, columns), row-major; a vector has rows = 1.
struct Shape2 {
  std::int64_t rows = 1;
  std::int64_t columns = 1;
  std::int64_t elements() const { return rows * columns; }
  bool is_matrix() const { return rows > 1 && columns > 1; }
};

// One step of one tensor, or of a run of its elements (element-wise rules, from a multiple of the
// rule's granule on). Weights and gradient have the same size; state is what state_bytes or
// state_range say, aligned to 8 bytes; nothing overlaps. All values are finite: a step with a NaN
// or an infinity in its gradient is for the caller to skip.
struct UpdateTask {
  std::span<float> weights;
  std::span<const float> gradient;
  std::span<std::byte> state;
  Shape2 shape;           // of the whole tensor
  std::int64_t step = 1;  // counts from 1; a resumed run goes on where it stopped
  double learning_rate = 0.0;
  double weight_decay = 0.0;    // decoupled: w <- w (1 - learning_rate * weight_decay) first
  float gradient_scale = 1.0f;  // g = gradient_scale * gradient: clipping and means cost no pass
  const Settings& settings;
};

// An entry of list.inc. Every function is deterministic: the same task gives the same bits on every
// instruction set and, for element-wise rules, whatever the split.
struct UpdateRule {
  std::string_view name;
  std::string_view summary;  // the step as a formula
  std::string_view source;   // paper and equation
  std::span<const Setting> defaults;
  // What the source trains with; a starting point.
  double learning_rate = 1e-3;
  double weight_decay = 0.0;
  // May be called on any run that begins at a multiple of `granule` elements and ends at one or at
  // the tensor's end, so that threads can share a tensor.
  bool element_wise = false;
  std::int64_t granule = 1;
  std::size_t (*state_bytes)(Shape2 shape, const Settings&) = nullptr;
  // Memory that update takes for its own use while it runs; nullptr: none.
  std::size_t (*scratch_bytes)(Shape2 shape, const Settings&) = nullptr;
  // Makes the state of step 1. nullptr: zeros.
  void (*initialize)(std::span<std::byte> state, Shape2, const Settings&) = nullptr;
  void (*update)(const UpdateTask&) = nullptr;
};

// Sets the state as before the first step, whatever was in it.
void initialize_state(const UpdateRule& rule, std::span<std::byte> state, Shape2 shape,
                      const Settings& settings);

// Where the state of elements [begin, end) lies in the tensor's state: of an element-wise rule,
// begin a multiple of its granule, end one or the tensor's size.
struct StateRange {
  std::size_t offset = 0;  // bytes
  std::size_t size = 0;
};
StateRange state_range(const UpdateRule& rule, Shape2 shape, const Settings& settings,
                       std::int64_t begin, std::int64_t end);

std::size_t scratch_bytes(const UpdateRule& rule, Shape2 shape, const Settings& settings);

}  // namespace hone::optim
