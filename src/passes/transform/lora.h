// Adapters: what is trained beside a frozen weight matrix (Hu et al. 2021, section 4.1).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/status.h"
#include "ir/graph.h"

namespace hone::passes {

enum class AdapterForm : std::uint8_t {
  kLora,  // y + scale * B (A x)
  // y + scale * B (A pool(x)), pool = sums over blocks of 32 columns (Xu et al. 2023, QA-LoRA,
  // section 3.3): the same as adding scale * (B A)[row][block] to every weight of a block.
  kPooled,
  // m * (W x + scale * B (A x)) / |row of W + scale * B A|: magnitude and direction apart (Liu et
  // al. 2024, DoRA, equation 5); the norm counts as constant in the gradient (section 4.3).
  kDora,
};

struct LoraOptions {
  AdapterForm form = AdapterForm::kLora;
  // The weight's name to the rank r of its adapter.
  std::map<std::string, std::int64_t, std::less<>> ranks;
  double scale = 1;
  // Chance of dropping an element of x in front of A (Hu et al. 2021's lora_dropout); reads the
  // input "draws" (2): the run's seed and the step.
  double dropout = 0;
  // Of kDora: magnitude / norm is a parameter of its own instead of being computed in each run.
  bool fixed_gain = false;
  // Adapters of so many members of a population at once, of kLora: each row of the batch is served
  // by the adapter of its member, which the inputs "members" (N tokens) and "row_members" (rows
  // whose logits are wanted) name. A is (M r, K), or one for all if `shared_a`; B is (R, M r).
  std::int64_t members = 1;
  bool shared_a = false;
  // A and B carry the attribute `writable`: the pass `layout` leaves them row-major, so that
  // whoever writes them in place is seen at the next run.
  bool writable = false;
};

// Parameters of a weight's adapter, both f32: A (r, K), for pooled ones (r, K / 32); B (R, r).
std::string lora_a_name(std::string_view weight);  // "blk.0.attn_q.weight.lora_a"
std::string lora_b_name(std::string_view weight);
// Of a population, so that they stand beside those of one adapter.
std::string population_a_name(std::string_view weight);
std::string population_b_name(std::string_view weight);
std::string lora_magnitude_name(std::string_view weight);  // (R), of kDora
std::string lora_gain_name(std::string_view weight);       // (R), of kDora with a fixed gain

// Adds adapters to every matmul with the weights that `ranks` names; comes before the passes that
// fuse or pack. Where the product is only added to a residual, the adapter's part is added after
// it, so that both sums fuse with their products. Errors: kNotFound for a weight that no matmul
// reads, kInvalidArgument for a rank below 1, a second adapter, a population of another form than
// kLora, or columns that cannot be pooled.
Result<ir::Graph> add_lora(const ir::Graph& graph, const LoraOptions& options);

}  // namespace hone::passes
