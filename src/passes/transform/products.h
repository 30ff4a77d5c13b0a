// The products of linear layers in f32, which passes of low precision change.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "ir/graph.h"

namespace hone::passes {

enum class Product : std::uint8_t {
  kNone,
  kForward,  // matmul: y (N, R) = x (N, K) W^T
  kInput,    // matmul_back: (N, K) = dy (N, R) W
  kWeight,   // matmul_outer: (R, K) = dy^T x
};

// What the operation is: with a parameter W in f32 (or one times constants) of at least `least`
// rows and columns, or the gradient of such a weight; kNone for all others, among them the narrow
// matrices of adapters.
Product product_of(const ir::Graph& graph, const ir::Operation& operation, std::int64_t least);

}  // namespace hone::passes
