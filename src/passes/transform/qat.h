// Quantization-aware training: linear layers compute with rounded weights and inputs, and gradients
// pass as if nothing had been rounded (Bengio, Léonard & Courville 2013; Jacob et al. 2018).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

struct QatOptions {
  std::int64_t weight_bits = 4;  // 2 to 16; 0: as they are
  std::int64_t activation_bits = 8;
  std::string granularity = "row";  // of ops/fake_quantize: a row of a weight, or a token
  // Both by a Hadamard matrix first, which changes no product (QuEST: Panferov et al. 2025).
  bool rotate = false;
  std::int64_t least = 32;  // rows and columns of the weights that take part
};

// Comes before add_gradients; without gradients it is what a model computes after such a rounding.
// Error: kInvalidArgument for bits or a granularity that fake_quantize does not know.
Result<ir::Graph> add_qat(const ir::Graph& graph, const QatOptions& options);

}  // namespace hone::passes
