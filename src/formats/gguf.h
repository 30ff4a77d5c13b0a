// GGUF files: a mapped reader of versions 2 and 3, and a writer of version 3 that streams.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "formats/gguf_metadata.h"
#include "formats/tensor_record.h"

namespace hone::formats {

// Everything in the header is checked against the size of the file before it is believed, and each
// error names the file, the byte, what was found and what was expected. Tensor data is never
// copied: records point into the mapping, so they live as long as the GgufFile (moving it is fine).
class GgufFile {
 public:
  static Result<GgufFile> open(const std::string& path);
  // Reads bytes that the caller keeps alive; `name` stands for the file in errors.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string name);

  std::uint32_t version() const { return version_; }
  std::size_t alignment() const { return alignment_; }
  const Metadata& metadata() const { return metadata_; }
  // In the file's order; empty for a file that holds only a vocabulary.
  std::span<const TensorRecord> tensors() const { return tensors_; }
  const TensorRecord* find(std::string_view name) const;  // nullptr if absent
  const MappedFile& file() const { return file_; }        // empty after parse()

 private:
  friend class GgufReader;
  std::uint32_t version_ = 0;
  std::size_t alignment_ = 0;
  Metadata metadata_;
  std::vector<TensorRecord> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  MappedFile file_;
};

struct GgufTensorToWrite {
  std::string name;  // at most 63 bytes, what other readers take
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;  // outermost first, at most 4
  // Either the bytes, or a function that appends exactly dtype_bytes of them, called when the
  // tensor's turn comes so that a model is never held whole.
  std::span<const std::byte> data;
  std::function<Status(const Append&)> fill;
};

// Replaces `path` only when the file is complete. `general.alignment` of the metadata is obeyed.
// Errors: kInvalidArgument (names, shapes, sizes, a dtype that GGUF lacks), kIo, and those of
// `fill`.
Status write_gguf(const std::string& path, const Metadata& metadata,
                  std::span<const GgufTensorToWrite> tensors);

}  // namespace hone::formats
