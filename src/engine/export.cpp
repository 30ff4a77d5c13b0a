// SPDX-License-Identifier: Apache-2.0
#include "engine/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "engine/tensor_change.h"
#include "formats/safetensors.h"
#include "quant/codec.h"

namespace hone::engine {
namespace {

namespace fs = std::filesystem;
using formats::TensorRecord;

Result<const models::Family*> family_of(const ModelSource& source) {
  const auto architecture = source.metadata().text("general.architecture");
  if (!architecture) return architecture.error();
  const models::Family* family = models::find_family(*architecture);
  if (family != nullptr) return family;
  return Error{ErrorCode::kUnsupported,
               "hone does not know this kind of model",
               source.path() + ", general.architecture",
               fmt::format("'{}'", *architecture),
               "",
               ""};
}

Result<HeadCounts> heads_of(const ModelSource& source, const models::Family& family) {
  const std::string architecture(family.architecture);
  const auto query = source.metadata().integer(architecture + ".attention.head_count");
  if (!query) return query.error();
  const auto key = source.metadata().integer_or(architecture + ".attention.head_count_kv", *query);
  if (!key) return key.error();
  return HeadCounts{*query, *key};
}

// One tensor of the new file: decoded, rearranged, rounded.
class TensorExport {
 public:
  TensorExport(const ModelSource& source, const ExportOptions& options, HeadCounts heads)
      : source_(source), options_(options), heads_(heads) {}

  Status write(const TensorRecord& tensor, models::Change change, DType to, const Append& append);

 private:
  Status pieces(DType from, std::span<const std::byte> data, std::int64_t columns, DType to,
                const Append& append, const TensorRecord* release);

  const ModelSource& source_;
  const ExportOptions& options_;
  HeadCounts heads_;
  std::int64_t done_ = 0;
};

Status TensorExport::pieces(DType from, std::span<const std::byte> data, std::int64_t columns,
                            DType to, const Append& append, const TensorRecord* release) {
  const auto row = static_cast<std::size_t>(dtype_bytes(from, columns));
  constexpr std::int64_t kWeightsAtOnce = 1 << 20;
  const std::size_t piece =
      row * static_cast<std::size_t>(std::max<std::int64_t>(1, kWeightsAtOnce / columns));
  for (std::size_t at = 0; at < data.size(); at += piece) {
    const auto part = data.subspan(at, std::min(piece, data.size() - at));
    const auto weights = quant::dequantize(from, part);
    if (!weights) return weights.error();
    const auto bytes = quant::quantize(to, *weights);
    if (!bytes) return bytes.error();
    HONE_RETURN_IF_ERROR(append(*bytes));
    if (release != nullptr) source_.release(*release, at, part.size());
  }
  return {};
}

Status TensorExport::write(const TensorRecord& tensor, models::Change change, DType to,
                           const Append& append) {
  const std::int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (change == models::Change::kNone || change == models::Change::kRopeQuery ||
      change == models::Change::kRopeKey) {
    std::span<const std::byte> data = tensor.data;
    std::optional<ChangedTensor> changed;
    if (change != models::Change::kNone) {
      auto permuted = to_hugging_face(change, tensor.dtype, tensor.shape, tensor.data, heads_);
      if (!permuted) return permuted.error();
      changed = *std::move(permuted);
      data = changed->data;
    }
    HONE_RETURN_IF_ERROR(
        pieces(tensor.dtype, data, columns, to, append, changed ? nullptr : &tensor));
  } else {
    // Sums and transpositions work on plain numbers.
    const auto weights = quant::dequantize(tensor.dtype, tensor.data);
    if (!weights) return weights.error();
    auto changed = to_hugging_face(change, DType::kF32, tensor.shape,
                                   std::as_bytes(std::span(*weights)), heads_);
    if (!changed) return changed.error();
    HONE_RETURN_IF_ERROR(
        pieces(DType::kF32, changed->data, changed->shape.back(), to, append, nullptr));
  }
  done_ += static_cast<std::int64_t>(tensor.data.size());
  if (!options_.watch || options_.watch(done_)) return {};
  return Error{ErrorCode::kInvalidArgument, "stopped before the end", "", "", "", ""};
}

Status write_tensors(const ModelSource& source, const models::Family& family,
                     const std::string& path, const ExportOptions& options) {
  const auto heads = heads_of(source, family);
  if (!heads) return heads.error();
  TensorExport exporter(source, options, *heads);
  std::vector<formats::SafetensorsTensorToWrite> tensors;
  for (const TensorRecord& tensor : source.tensors()) {
    if (tensor.name == "rope_freqs.weight") continue;  // a rule in config.json
    const auto named = hugging_face_name(family, tensor.name);
    if (!named) {
      return Error{ErrorCode::kUnsupported,
                   "the model has a tensor that Hugging Face has no name for",
                   source.path(),
                   formats::printable(tensor.name),
                   fmt::format("tensors of {}", family.hugging_face_class),
                   ""};
    }
    formats::SafetensorsTensorToWrite out;
    out.name = named->name;
    out.dtype = tensor.shape.size() < 2 ? DType::kF32 : options.type;
    out.shape = tensor.shape;
    if (named->change == models::Change::kTranspose)
      std::reverse(out.shape.begin(), out.shape.end());
    out.fill = [&exporter, &tensor, change = named->change, to = out.dtype](const Append& append) {
      return exporter.write(tensor, change, to, append);
    };
    tensors.push_back(std::move(out));
  }
  return formats::write_safetensors(path, tensors, {{"format", "pt"}});
}

Status make_folder(const std::string& path) {
  std::error_code code;
  if (fs::exists(path, code) && !(fs::is_directory(path, code) && fs::is_empty(path, code))) {
    return Error{ErrorCode::kInvalidArgument,
                 "the folder to write exists and is not empty",
                 path,
                 "",
                 "a new folder",
                 "remove it, or name another"};
  }
  fs::create_directories(path, code);
  if (!code) return {};
  return Error{ErrorCode::kIo, "cannot make the folder", path, code.message(), "", ""};
}

}  // namespace

Status export_folder(const ModelSource& source, const std::string& path,
                     const ExportOptions& options) {
  const auto family = family_of(source);
  if (!family) return family.error();
  const auto config = hugging_face_config(source, **family, options.type);
  if (!config) return config.error();
  std::optional<TokenizerFiles> files;
  const auto vocabulary = source.vocabulary();
  if (vocabulary) {
    auto made = tokenizer_files(*vocabulary);
    if (!made) return made.error();
    files = *std::move(made);
  } else if (vocabulary.error().code != ErrorCode::kNotFound) {
    return vocabulary.error();
  }
  HONE_RETURN_IF_ERROR(make_folder(path));
  const fs::path folder(path);
  Status status = write_tensors(source, **family, (folder / "model.safetensors").string(), options);
  if (status.ok() && files) {
    status = write_file_atomically((folder / "tokenizer.json").string(), files->tokenizer);
  }
  if (status.ok() && files) {
    status = write_file_atomically((folder / "tokenizer_config.json").string(), files->config);
  }
  if (status.ok()) status = write_file_atomically((folder / "config.json").string(), *config);
  if (status.ok()) return {};
  std::error_code ignored;
  for (const char* name : {"model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    fs::remove(folder / name, ignored);
  }
  fs::remove(folder, ignored);  // it was empty or absent before
  return status;
}

}  // namespace hone::engine
