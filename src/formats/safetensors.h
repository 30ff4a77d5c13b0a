// Safetensors: a mapped reader of one file or of a sharded folder, and a writer that streams.
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
#include "formats/tensor_record.h"

namespace hone::formats {

// Records point into the mappings, which live as long as this object (moving it is fine).
class Safetensors {
 public:
  // `path` is a .safetensors file, a model.safetensors.index.json, or a folder that holds
  // model.safetensors or that index. Of an index every named tensor must be in the named file.
  static Result<Safetensors> open(const std::string& path);
  // Reads bytes that the caller keeps alive; `name` stands for the file in errors.
  static Result<Safetensors> parse(std::span<const std::byte> bytes, const std::string& name);

  // Ordered by file and then by place in it.
  std::span<const TensorRecord> tensors() const { return tensors_; }
  const TensorRecord* find(std::string_view name) const;  // nullptr if absent
  // "__metadata__" of the file, or of the first shard that has the key.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::span<const MappedFile> files() const { return files_; }  // TensorRecord::file indexes it

 private:
  friend class SafetensorsReader;
  std::vector<TensorRecord> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
  std::vector<MappedFile> files_;
};

struct SafetensorsTensorToWrite {
  std::string name;
  DType dtype = DType::kF32;  // a plain number; block formats are an error
  std::vector<std::int64_t> shape;
  // Either the bytes, or a function that appends exactly dtype_bytes of them.
  std::span<const std::byte> data;
  std::function<Status(const Append&)> fill;
};

// One file, replaced only when complete. Tensors are stored widest element first, so that each is
// aligned to its element.
// Errors: kInvalidArgument (names, shapes, sizes, element types), kIo, and those of `fill`.
Status write_safetensors(const std::string& path, std::span<const SafetensorsTensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata = {});

}  // namespace hone::formats
