// Random graphs of small ops, and one way to run any graph on values that its names decide.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "ir/graph.h"
#include "passes/lower/lower.h"

namespace hone::testing_graphs {

// A graph of about `size` small ops over (N, 64) and (N, 128) rows: matmuls with plain and
// block-quantized weights alone, in groups, gated and before additions, norms, rope, constants,
// equal and unused operations.
ir::Graph random_graph(std::uint64_t seed, int size);

// The outputs of a run, as the bytes of f32. Inputs and weights are drawn from their names, so two
// graphs that keep names see the same values, whatever layout their weights have.
Result<std::vector<std::vector<float>>> run_graph(const ir::Graph& graph,
                                                  const passes::LowerOptions& options);

// Empty where they are equal, else what differs first. `tolerance` as in passes/pass.h: a multiple
// of f32 epsilon times the largest |a| of the output; 0: bit for bit.
std::string difference(const std::vector<std::vector<float>>& a,
                       const std::vector<std::vector<float>>& b, double tolerance);

}  // namespace hone::testing_graphs
