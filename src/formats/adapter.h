// Adapters as records: low-rank matrices beside a model's weights, or virtual tokens in front of
// its text; and GGUF files of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/gguf.h"

namespace hone::formats {

enum class AdapterKind : std::uint8_t {
  kLora,    // W x + scale * B (A x): what llama.cpp and PEFT know
  kPooled,  // W x + scale * B (A pool(x)), pool = sums of 32 columns: hone's own
  kDora,    // m * (W x + scale * B (A x)) / |row of W + scale * B A|: what PEFT calls use_dora
  kPrompt,  // virtual tokens in front of the text: what PEFT calls prompt tuning
};
std::string_view adapter_kind_name(AdapterKind kind);

// Columns of a pooled adapter's blocks.
inline constexpr std::int64_t kPoolColumns = 32;

// Of one weight (R, K). Row-major.
struct AdapterWeight {
  std::int64_t rank = 0;         // r
  std::int64_t inputs = 0;       // columns of A: K, or K / 32 of a pooled adapter
  std::int64_t outputs = 0;      // R
  std::vector<float> a;          // (r, inputs)
  std::vector<float> b;          // (R, r)
  std::vector<float> magnitude;  // (R) of kDora; empty otherwise
};

struct Adapter {
  AdapterKind kind = AdapterKind::kLora;
  std::string architecture;  // GGUF's name of the model's family; empty where the file has none
  std::string base;          // the model that it was trained on, in whoever's words; may be empty
  // scale = alpha / rank (of each weight); 0: scale = 1, as llama.cpp has it.
  double alpha = 0;
  // By the name of the model's tensor: GGUF's ("blk.0.attn_q.weight") in an adapter for a model.
  std::map<std::string, AdapterWeight, std::less<>> weights;

  // Of kPrompt, which has no weights: P virtual tokens as the first layer sees them.
  std::int64_t virtual_tokens = 0;  // P
  std::int64_t hidden = 0;          // C
  std::vector<float> prompt;        // (P, C)

  double scale(std::int64_t rank) const {
    return alpha == 0 ? 1.0 : alpha / static_cast<double>(rank);
  }
  std::int64_t parameters() const;
};

// Virtual tokens at most: more than help, and a bound on what a broken file claims.
inline constexpr std::int64_t kMostVirtualTokens = 4096;

// Sizes that agree, finite numbers, a rank; names are the caller's to check. kCorrupt otherwise.
Status check_adapter(const Adapter& adapter);

// A GGUF file of general.type "adapter", as llama.cpp's converter writes them: adapter.type "lora",
// adapter.lora.alpha, and pairs of tensors "<weight>.lora_a" (r, K) and "<weight>.lora_b" (R, r).
// Pooled ones and DoRA (with a third tensor, "<weight>.lora_m" (R)) have their own adapter.type, so
// that other readers refuse them; so has a soft prompt ("prompt"), which is one tensor,
// "soft_prompt.weight" (P, C). Errors: kUnsupported for
// a model or an unknown kind of adapter, kCorrupt for pairs that are none.
Result<Adapter> read_adapter_gguf(const std::string& path);
Result<Adapter> adapter_of_gguf(const GgufFile& file, const std::string& path);
Status write_adapter_gguf(const std::string& path, const Adapter& adapter);

}  // namespace hone::formats
