// SPDX-License-Identifier: Apache-2.0
#include "engine/rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "formats/gguf.h"
#include "quant/codec.h"

namespace hone::engine {
namespace {

using formats::TensorRecord;

// llama.cpp's numbers of general.file_type; those of the k-quants without a mixture (…_S).
constexpr std::array<std::pair<DType, std::uint32_t>, 14> kFileTypes = {{{DType::kF32, 0},
                                                                         {DType::kF16, 1},
                                                                         {DType::kQ4_0, 2},
                                                                         {DType::kQ4_1, 3},
                                                                         {DType::kQ8_0, 7},
                                                                         {DType::kQ5_0, 8},
                                                                         {DType::kQ5_1, 9},
                                                                         {DType::kQ2_K, 10},
                                                                         {DType::kQ3_K, 11},
                                                                         {DType::kQ4_K, 14},
                                                                         {DType::kQ5_K, 16},
                                                                         {DType::kQ6_K, 18},
                                                                         {DType::kIQ4_NL, 25},
                                                                         {DType::kBF16, 32}}};

bool is_embedding(const std::string& name) {
  return name == "token_embd.weight" || name == "output.weight";
}

std::int64_t columns_of(const TensorRecord& tensor) {
  return tensor.shape.empty() ? 1 : tensor.shape.back();
}

struct Plan {
  DType type = DType::kF32;
  bool fell_back = false;
};

Plan plan_of(const TensorRecord& tensor, const RewriteOptions& options) {
  const bool has_codec = quant::find_codec(tensor.dtype) != nullptr;
  if (!has_codec) return {tensor.dtype, false};  // whole numbers: nothing to convert
  // Learned positions are added, never multiplied with; other readers want them plain.
  const bool matrix = tensor.shape.size() >= 2 && tensor.name != "position_embd.weight";
  if (!matrix) return {DType::kF32, false};
  std::optional<DType> wanted = options.type;
  if (is_embedding(tensor.name)) {
    if (options.keep_embedding && is_block_quantized(tensor.dtype)) return {tensor.dtype, false};
    if (options.embedding_type) wanted = options.embedding_type;
  }
  if (!wanted) return {tensor.dtype, false};
  const DType fitting = fitting_type(*wanted, columns_of(tensor));
  return {fitting, fitting != *wanted};
}

// Decodes and encodes runs of rows, all threads at once, and sums the error.
class Rewriter {
 public:
  Rewriter(const ModelSource& source, ThreadPool& pool, const RewriteOptions& options)
      : source_(source), pool_(pool), options_(options) {}

  Status write(const TensorRecord& tensor, const std::optional<TensorEdit>& edit,
               RewrittenTensor& report, const Append& append);

 private:
  Status watch(std::size_t bytes);
  Status copy(const TensorRecord& tensor, const Append& append);
  void encode(const TensorRecord& tensor, const TensorEdit& edit, std::int64_t first,
              std::int64_t count, std::span<std::byte> out, RewrittenTensor& report);

  const ModelSource& source_;
  ThreadPool& pool_;
  const RewriteOptions& options_;
  std::int64_t done_ = 0;
};

Status Rewriter::watch(std::size_t bytes) {
  done_ += static_cast<std::int64_t>(bytes);
  if (!options_.watch || options_.watch(done_)) return {};
  return Error{ErrorCode::kInvalidArgument, "stopped before the end", "", "", "", ""};
}

Status Rewriter::copy(const TensorRecord& tensor, const Append& append) {
  return source_.each_part(tensor, [&](std::span<const std::byte> part) -> Status {
    HONE_RETURN_IF_ERROR(append(part));
    return watch(part.size());
  });
}

void Rewriter::encode(const TensorRecord& tensor, const TensorEdit& edit, std::int64_t first,
                      std::int64_t count, std::span<std::byte> out, RewrittenTensor& report) {
  const DType to = edit.type;
  const quant::Codec& to_codec = *quant::find_codec(to);
  const std::int64_t columns = columns_of(tensor);
  const auto from_row = static_cast<std::size_t>(dtype_bytes(tensor.dtype, columns));
  const auto to_row = static_cast<std::size_t>(dtype_bytes(to, columns));
  struct Sums {
    double error = 0;
    double weights = 0;
  };
  // One pair a row, added in order: the report does not depend on the number of threads.
  std::vector<Sums> sums(static_cast<std::size_t>(count));
  pool_.run([&](int thread) {
    std::vector<float> weights(static_cast<std::size_t>(columns));
    std::vector<float> decoded(weights.size());
    const Range rows = share_of(count, thread, pool_.size());
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto from_at = static_cast<std::size_t>(first + row) * from_row;
      const std::span<std::byte> block =
          out.subspan(static_cast<std::size_t>(row) * to_row, to_row);
      edit.row(first + row, tensor.data.subspan(from_at, from_row), weights, block);
      to_codec.decode(block, decoded);
      Sums& sum = sums[static_cast<std::size_t>(row)];
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const double weight = weights[i];
        const double error = static_cast<double>(decoded[i]) - weight;
        sum.error += error * error;
        sum.weights += weight * weight;
      }
    }
  });
  for (const Sums& sum : sums) {
    report.squared_error += sum.error;
    report.squared_weights += sum.weights;
  }
}

// The same values in another type.
TensorEdit encoding(DType from, DType to) {
  const quant::Codec* from_codec = quant::find_codec(from);
  const quant::Codec* to_codec = quant::find_codec(to);
  return {to, [from_codec, to_codec](std::int64_t, std::span<const std::byte> row,
                                     std::span<float> wanted, std::span<std::byte> out) {
            from_codec->decode(row, wanted);
            to_codec->encode(wanted, {}, out);
          }};
}

Status Rewriter::write(const TensorRecord& tensor, const std::optional<TensorEdit>& edit,
                       RewrittenTensor& report, const Append& append) {
  if (!edit && report.before == report.after) return copy(tensor, append);
  const TensorEdit change = edit ? *edit : encoding(report.before, report.after);
  const std::int64_t columns = columns_of(tensor);
  const std::int64_t rows = columns == 0 ? 0 : tensor.elements() / columns;
  constexpr std::int64_t kWeightsAtOnce = 1 << 21;
  const std::int64_t piece =
      std::max<std::int64_t>(1, kWeightsAtOnce / std::max<std::int64_t>(columns, 1));
  const auto from_row = static_cast<std::size_t>(dtype_bytes(tensor.dtype, columns));
  const std::int64_t to_row = dtype_bytes(report.after, columns);
  std::vector<std::byte> out;
  for (std::int64_t first = 0; first < rows; first += piece) {
    const std::int64_t count = std::min(piece, rows - first);
    out.resize(static_cast<std::size_t>(count * to_row));
    encode(tensor, change, first, count, out, report);
    HONE_RETURN_IF_ERROR(append(out));
    const std::size_t size = static_cast<std::size_t>(count) * from_row;
    source_.release(tensor, static_cast<std::size_t>(first) * from_row, size);
    HONE_RETURN_IF_ERROR(watch(size));
  }
  return {};
}

Status describe(formats::Metadata& metadata, const std::vector<RewrittenTensor>& tensors,
                const RewriteOptions& options) {
  // What most of the bytes are, where nothing was asked for.
  DType type = options.type.value_or(DType::kF32);
  if (!options.type) {
    std::int64_t most = 0;
    for (const RewrittenTensor& tensor : tensors) {
      if (tensor.bytes_after > most) type = tensor.after;
      most = std::max(most, tensor.bytes_after);
    }
  }
  for (const auto& [dtype, number] : kFileTypes) {
    if (dtype == type) metadata.set("general.file_type", number);
  }
  bool quantized = false;
  for (const RewrittenTensor& tensor : tensors) {
    quantized = quantized || is_block_quantized(tensor.after);
  }
  if (quantized) metadata.set("general.quantization_version", std::uint32_t{2});
  return {};
}

}  // namespace

double RewrittenTensor::relative_error() const {
  return squared_weights > 0 ? std::sqrt(squared_error / squared_weights) : 0;
}

DType fitting_type(DType wanted, std::int64_t columns) {
  if (columns % dtype_info(wanted).block == 0) return wanted;
  // The next richer format with blocks of 32, as other quantizers choose.
  DType small = DType::kQ8_0;
  switch (wanted) {
    case DType::kQ2_K:
    case DType::kQ3_K: small = DType::kQ4_0; break;
    case DType::kQ4_K: small = DType::kQ5_0; break;
    case DType::kQ5_K: small = DType::kQ5_1; break;
    default: break;
  }
  return columns % dtype_info(small).block == 0 ? small : DType::kF16;
}

Result<std::vector<RewrittenTensor>> rewrite_gguf(const ModelSource& source,
                                                  const std::string& path,
                                                  const RewriteOptions& options, ThreadPool& pool) {
  for (const auto& wanted : {options.type, options.embedding_type}) {
    if (!wanted || quant::find_codec(*wanted) != nullptr) continue;
    return Error{ErrorCode::kUnsupported,
                 "weights cannot be stored in this type",
                 "",
                 std::string(dtype_name(*wanted)),
                 "",
                 ""};
  }
  auto metadata = gguf_metadata(source);
  if (!metadata) return metadata.error();
  std::vector<RewrittenTensor> reports;
  reports.reserve(source.tensors().size());
  std::vector<formats::GgufTensorToWrite> tensors;
  Rewriter rewriter(source, pool, options);
  for (const TensorRecord& tensor : source.tensors()) {
    auto edit = options.edit ? options.edit(tensor) : std::nullopt;
    const Plan plan = edit ? Plan{edit->type, false} : plan_of(tensor, options);
    RewrittenTensor& report = reports.emplace_back();
    report.name = tensor.name;
    report.before = tensor.dtype;
    report.after = plan.type;
    report.edited = edit.has_value();
    report.fell_back = plan.fell_back;
    report.weights = tensor.elements();
    report.bytes_before = static_cast<std::int64_t>(tensor.data.size());
    report.bytes_after = dtype_bytes(plan.type, report.weights);
    formats::GgufTensorToWrite out;
    out.name = tensor.name;
    out.dtype = plan.type;
    out.shape = tensor.shape;
    out.fill = [&rewriter, &tensor, &report, edit = std::move(edit)](const Append& append) {
      return rewriter.write(tensor, edit, report, append);
    };
    tensors.push_back(std::move(out));
  }
  HONE_RETURN_IF_ERROR(describe(*metadata, reports, options));
  HONE_RETURN_IF_ERROR(formats::write_gguf(path, *metadata, tensors));
  return reports;
}

}  // namespace hone::engine
