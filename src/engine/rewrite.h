// A model written anew as GGUF: weights in other types, or a Hugging Face folder as one file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"
#include "base/threads.h"
#include "engine/model_source.h"

namespace hone::engine {

// Another value for a matrix, row by row; called from several threads at once.
struct TensorEdit {
  DType type = DType::kF32;  // of the result
  // Of row `row`: `from` is the source's bytes; `wanted` gets the values that the row shall have,
  // `to` the row's bytes in `type`, which decode to about these.
  std::function<void(std::int64_t row, std::span<const std::byte> from, std::span<float> wanted,
                     std::span<std::byte> to)>
      row;
};

struct RewriteOptions {
  // Of the matrices; nullopt keeps the type of each. Vectors become f32 always.
  std::optional<DType> type;
  // Of token_embd.weight and output.weight; nullopt: as `type`.
  std::optional<DType> embedding_type;
  // Embedding and output stay as they are where they are quantized already.
  bool keep_embedding = false;
  // Asked for each tensor; nothing: it is copied, or encoded in its new type.
  std::function<std::optional<TensorEdit>(const formats::TensorRecord&)> edit;
  // Told the bytes read so far; false stops the work (kInvalidArgument, nothing is left).
  std::function<bool(std::int64_t done)> watch;
};

struct RewrittenTensor {
  std::string name;
  DType before = DType::kF32;
  DType after = DType::kF32;
  std::int64_t weights = 0;
  std::int64_t bytes_before = 0;
  std::int64_t bytes_after = 0;
  double squared_error = 0;  // sums over the weights, against the source's own values
  double squared_weights = 0;
  bool edited = false;            // another value: the error is against that
  bool fell_back = false;         // rows are no multiple of the wanted type's block
  double relative_error() const;  // root mean square error over root mean square
};

// Streams: memory is a few megabytes beside the mapped source. Errors: kUnsupported for types
// without a codec, kIo, those of the tokenizer of a folder.
Result<std::vector<RewrittenTensor>> rewrite_gguf(const ModelSource& source,
                                                  const std::string& path,
                                                  const RewriteOptions& options, ThreadPool& pool);

// The type that a matrix with rows of `columns` weights gets where `wanted` has too large blocks.
DType fitting_type(DType wanted, std::int64_t columns);

// The folder's metadata with tokenizer.ggml.* added (as it is for a GGUF file, or without a
// tokenizer). kUnsupported where GGUF has no name for the tokenizer's steps.
Result<formats::Metadata> gguf_metadata(const ModelSource& source);

}  // namespace hone::engine
