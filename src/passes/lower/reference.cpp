// Lowering of an op without fast kernels: its reference, on one thread. Slow and right, so that a
// new op runs from its first day.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/half.h"
#include "kernels/packed.h"
#include "passes/lower/lower.h"
#include "passes/lower/support.h"
#include "quant/codec.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

// The elements of a value as doubles, out of whatever form it has in memory.
struct Reader {
  ir::Type type;
  Place place;
  kernels::CacheKind cache = kernels::CacheKind::kF16;
  Int8Span codes;

  std::vector<double> read_cache(const Frame& frame) const;

  std::vector<double> operator()(const Frame& frame, Worker worker) const {
    if (type.layout == ir::Layout::kCache) return read_cache(frame);
    const auto count = static_cast<std::size_t>(type.elements());
    std::vector<double> out(count);
    if (type.dtype == DType::kI32) {
      const auto values = frame.read_integers(place, worker.thread);
      std::copy_n(values.begin(), count, out.begin());
      return out;
    }
    const auto columns = static_cast<std::size_t>(type.columns());
    if (type.dtype == DType::kI8 && type.layout == ir::Layout::kRowMajor) {
      const auto* values =
          reinterpret_cast<const std::int8_t*>(frame.read(place, worker.thread).data());
      std::copy_n(values, count, out.begin());
      return out;
    }
    if (type.layout == ir::Layout::kInt8Rows) {
      for (std::int64_t row = 0; row < codes.rows; ++row) {
        const Int8Span::Row values = codes.write(frame, worker, row);
        for (std::size_t i = 0; i < columns; ++i) {
          out[static_cast<std::size_t>(row) * columns + i] =
              static_cast<double>(values.codes[i]) * static_cast<double>(values.scales[i / 32]);
        }
      }
      return out;
    }
    std::vector<float> floats(count);
    const auto bytes = frame.read(place, worker.thread);
    if (type.layout == ir::Layout::kRows16) {
      const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
      for (std::int64_t row = 0; row < type.rows(); ++row) {
        kernels::unpack_row(
            *layout, bytes, row,
            std::span(floats).subspan(static_cast<std::size_t>(row) * columns, columns));
      }
    } else if (const quant::Codec* codec = quant::find_codec(type.dtype)) {
      codec->decode(bytes, floats);
    }
    std::copy(floats.begin(), floats.end(), out.begin());
    return out;
  }
};

float cache_element(kernels::CacheKind kind, std::span<const std::byte> block, std::size_t index,
                    std::size_t elements, std::size_t token) {
  if (kind == kernels::CacheKind::kF32) return reinterpret_cast<const float*>(block.data())[index];
  if (kind == kernels::CacheKind::kF16) {
    return f16_to_f32(reinterpret_cast<const std::uint16_t*>(block.data())[index]);
  }
  const auto* scales = reinterpret_cast<const float*>(block.data() + elements);
  return static_cast<float>(reinterpret_cast<const std::int8_t*>(block.data())[index]) *
         scales[token];
}

// The paged form back to slot after slot, keys then values (ops/cache_support.h).
std::vector<double> Reader::read_cache(const Frame& frame) const {
  const runtime::CachePages& pages = frame.caches[place.at];
  const auto heads = static_cast<std::size_t>(type.shape[0]);
  const auto size = static_cast<std::size_t>(type.shape[1]);
  constexpr std::size_t kTokens = kernels::kPageTokens;
  const kernels::CacheLayout& layout = pages.layout;
  const std::size_t count = pages.keys.size() / layout.page_bytes_key();
  std::vector<double> out(count * kTokens * 2 * heads * size);
  for (std::size_t page = 0; page < count; ++page) {
    for (std::size_t head = 0; head < heads; ++head) {
      const std::size_t start = page * layout.page_bytes_key() + head * layout.block_bytes();
      const auto keys = pages.keys.subspan(start, layout.block_bytes());
      const auto values = pages.values.subspan(start, layout.block_bytes());
      for (std::size_t token = 0; token < kTokens; ++token) {
        double* slot = &out[((page * kTokens + token) * 2 * heads + head) * size];
        for (std::size_t d = 0; d < size; ++d) {
          slot[d] = cache_element(cache, keys, d * kTokens + token, kTokens * size, token);
          slot[heads * size + d] =
              cache_element(cache, values, token * size + d, kTokens * size, token);
        }
      }
    }
  }
  return out;
}

void write_int8(const Int8Span& out, const Frame& frame, Worker worker,
                const std::vector<double>& values, std::size_t columns,
                const kernels::KernelTable& kernels) {
  std::vector<float> row(columns);
  for (std::int64_t n = 0; n < out.rows; ++n) {
    for (std::size_t i = 0; i < columns; ++i) {
      row[i] = static_cast<float>(values[static_cast<std::size_t>(n) * columns + i]);
    }
    // Values on the grid of codes quantize to themselves.
    const Int8Span::Row to = out.write(frame, worker, n);
    kernels.quantize_row(row, to.codes, to.scales, to.sums);
  }
}

}  // namespace

Result<StepFunction> lower_reference(Lowering& lowering, const ir::Operation& operation) {
  const ir::OpDescriptor* op = operation.op;
  if (op->effect) {
    // Writing into the pages is a kernel in every mode: the reference of a cache has another form.
    if (operation.is("cache_write") || operation.is("rope_write")) {
      LoweringRule lower_effect =
          operation.is("cache_write") ? lower_cache_write : lower_rope_write;
      return lower_effect(lowering, operation);
    }
    return Error{ErrorCode::kUnsupported,
                 fmt::format("'{}' writes state and has no kernel", op->name),
                 "",
                 "",
                 "",
                 ""};
  }
  if (op->evaluate == nullptr) {
    return Error{
        ErrorCode::kUnsupported, fmt::format("'{}' has no reference", op->name), "", "", "", ""};
  }
  std::vector<Reader> readers;
  for (const ir::ValueId id : operation.operands) {
    Reader reader{lowering.type(id), lowering.place(id), lowering.options().cache, {}};
    if (reader.type.layout == ir::Layout::kInt8Rows) reader.codes = int8_span(lowering, id);
    readers.push_back(reader);
  }
  std::vector<ir::Type> types;
  std::vector<Place> places;
  std::vector<Int8Span> codes;
  for (const ir::ValueId id : operation.results) {
    types.push_back(lowering.type(id));
    places.push_back(lowering.place(id));
    codes.push_back(int8_span(lowering, id));
  }
  return StepFunction([=, attributes = operation.attributes, k = &lowering.kernels()](
                          const Frame& frame, Worker worker) {
    if (worker.thread != 0) return;
    std::vector<ir::Tensor> tensors;
    std::vector<const ir::Tensor*> operands;
    for (const Reader& reader : readers) tensors.push_back({reader.type, reader(frame, worker)});
    for (const ir::Tensor& tensor : tensors) operands.push_back(&tensor);
    std::vector<ir::Tensor> results;
    for (const ir::Type& type : types) {
      results.push_back(
          {type, std::vector<double>(static_cast<std::size_t>(type.elements()), 0.0)});
    }
    op->evaluate({attributes, operands, results});
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (types[i].layout == ir::Layout::kInt8Rows) {
        write_int8(codes[i], frame, worker, results[i].data,
                   static_cast<std::size_t>(types[i].columns()), *k);
        continue;
      }
      if (types[i].dtype == DType::kI8) {
        auto* out = reinterpret_cast<std::int8_t*>(frame.bytes(places[i], worker.thread).data());
        for (const double value : results[i].data) *out++ = static_cast<std::int8_t>(value);
        continue;
      }
      const auto out = frame.floats(places[i], worker.thread);
      for (std::size_t j = 0; j < results[i].data.size(); ++j) {
        out[j] = static_cast<float>(results[i].data[j]);
      }
    }
  });
}

}  // namespace hone::passes
