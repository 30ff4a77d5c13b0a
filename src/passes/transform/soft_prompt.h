// Virtual tokens: rows of a table that is trained, in front of every sequence's own tokens (Lester
// et al. 2021, "The power of scale for parameter-efficient prompt tuning", section 2).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

// The parameter: (P, C) f32, what the first layer sees in place of embedded tokens.
inline constexpr std::string_view kSoftPromptName = "soft_prompt.weight";

struct SoftPromptOptions {
  std::int64_t virtual_tokens = 16;  // P
  // The input (N) i32 that tells which virtual token a row is; P or more: none. By position where
  // every sequence of a batch begins with its virtual tokens.
  std::string rows = "positions";
  bool writable = false;  // as LoraOptions::writable
};

// The tokens embedded, as the first layer sees them: after the factor that some families put on
// them, before learned positions. The batch has placeholders (any token) where virtual tokens are.
// Errors: kUnsupported for a graph that embeds no tokens, kInvalidArgument for no virtual tokens.
Result<ir::Graph> add_soft_prompt(const ir::Graph& graph, const SoftPromptOptions& options);

// What the family multiplies rows of its embedding by; 1 where it does not.
Result<double> embedding_factor(const ir::Graph& graph);

}  // namespace hone::passes
