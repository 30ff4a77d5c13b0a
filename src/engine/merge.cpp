// SPDX-License-Identifier: Apache-2.0
#include "engine/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>
#include <utility>

#include "engine/adapter.h"
#include "quant/codec.h"
#include "quant/minimums.h"

namespace hone::engine {
namespace {

using formats::Adapter;
using formats::AdapterKind;
using formats::AdapterWeight;
using formats::TensorRecord;

// One row of scale * B A: inputs values, f32 sums in the order of the ranks.
void row_of_product(const AdapterWeight& weight, float scale, std::int64_t row,
                    std::span<float> out) {
  std::ranges::fill(out, 0.0f);
  const auto rank = static_cast<std::size_t>(weight.rank);
  for (std::size_t r = 0; r < rank; ++r) {
    const float factor = scale * weight.b[static_cast<std::size_t>(row) * rank + r];
    const float* a = weight.a.data() + r * out.size();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += factor * a[i];
  }
}

// Decodes, adds, multiplies by the row's gain where there is one (DoRA), encodes.
TensorEdit adding(const TensorRecord& tensor, const AdapterWeight& weight, float scale,
                  std::vector<float> gain, DType to) {
  const quant::Codec* from = quant::find_codec(tensor.dtype);
  const quant::Codec* codec = quant::find_codec(to);
  return {to, [&weight, from, codec, scale, gain = std::move(gain)](
                  std::int64_t row, std::span<const std::byte> bytes, std::span<float> wanted,
                  std::span<std::byte> out) {
            std::vector<float> part(static_cast<std::size_t>(weight.inputs));
            row_of_product(weight, scale, row, part);
            from->decode(bytes, wanted);
            const std::size_t share = wanted.size() / part.size();  // 1, or a pool's columns
            for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += part[i / share];
            if (!gain.empty()) {
              for (float& value : wanted) value *= gain[static_cast<std::size_t>(row)];
            }
            codec->encode(wanted, {}, out);
          }};
}

TensorEdit shifting(const TensorRecord& tensor, const AdapterWeight& weight, float scale,
                    DType to) {
  const quant::Codec* codec = quant::find_codec(tensor.dtype);
  const DType from = tensor.dtype;
  return {to, [&weight, codec, from, to, scale](std::int64_t row, std::span<const std::byte> bytes,
                                                std::span<float> wanted, std::span<std::byte> out) {
            std::vector<float> shifts(static_cast<std::size_t>(weight.inputs));
            row_of_product(weight, scale, row, shifts);
            codec->decode(bytes, wanted);
            for (std::size_t i = 0; i < wanted.size(); ++i) {
              wanted[i] += shifts[i / quant::kShiftBlock];
            }
            quant::shift_minimums(from, to, bytes, shifts, out);
          }};
}

}  // namespace

Result<std::vector<MergedTensor>> merge_adapter(const ModelSource& model, const Adapter& adapter,
                                                const std::string& path,
                                                const MergeOptions& options, ThreadPool& pool) {
  HONE_RETURN_IF_ERROR(formats::check_adapter(adapter));
  HONE_RETURN_IF_ERROR(fits_model(adapter, model));
  if (adapter.kind == AdapterKind::kPrompt) {
    return Error{ErrorCode::kUnsupported,
                 "a soft prompt is in no weight, so it cannot be merged",
                 "",
                 fmt::format("{} virtual tokens", adapter.virtual_tokens),
                 "an adapter of weights",
                 "run the model with --adapter"};
  }
  static_assert(formats::kPoolColumns == quant::kShiftBlock);
  const bool pooled = adapter.kind == AdapterKind::kPooled;
  std::set<std::string> shifted;
  RewriteOptions how;
  how.watch = options.watch;
  how.edit = [&](const TensorRecord& tensor) -> std::optional<TensorEdit> {
    const auto at = adapter.weights.find(tensor.name);
    if (at == adapter.weights.end()) return std::nullopt;
    const auto scale = static_cast<float>(adapter.scale(at->second.rank) * options.strength);
    DType to = tensor.dtype;
    if (pooled) to = quant::shifted_type(tensor.dtype).value_or(to);
    if (options.type) to = fitting_type(*options.type, tensor.shape.back());
    if (pooled && quant::can_shift(tensor.dtype, to)) {
      shifted.insert(tensor.name);
      return shifting(tensor, at->second, scale, to);
    }
    std::vector<float> gain;
    if (adapter.kind == AdapterKind::kDora) {
      gain = dora_gain(tensor.name, adapter, model, options.strength);
    }
    return adding(tensor, at->second, scale, std::move(gain), to);
  };
  auto written = rewrite_gguf(model, path, how, pool);
  if (!written) return written.error();
  std::vector<MergedTensor> out;
  for (RewrittenTensor& tensor : *written) {
    const bool by_minimums = shifted.contains(tensor.name);
    out.push_back({std::move(tensor), by_minimums});
  }
  return out;
}

}  // namespace hone::engine
