// The packed form of a model's weights in a file of the cache: it is mapped in place of being made
// anew at every start, which takes most of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/status.h"
#include "kernels/packed.h"

namespace hone::engine {

// The file, numbers little endian:
//   0   "HONEPACK"
//   8   u64: bytes of the header
//   16  header, JSON: {"version", "identity", "tensors": [{"name", "dtype", "rows", "columns",
//       "offset"}]}
//   …   each tensor's panels at its offset, a multiple of 64
// `identity` is the model file's (base/file.h): a file of another model, or of one that was changed
// since, is passed over and written again.
class PackedFile {
 public:
  // What `folder` has of the model in this file; nothing where there is none, or none that fits.
  static std::optional<PackedFile> open(const std::string& folder, const std::string& model);

  // A tensor's panels; empty: not kept. `source` are its bytes in the model's file, row-major:
  // their first panel is packed and compared, so that a damaged file is not believed.
  std::span<const std::byte> find(std::string_view name, const kernels::PackedLayout& layout,
                                  std::span<const std::byte> source) const;

  // Where the file has them instead, for reading: an offset from its start; nothing if not.
  std::optional<std::size_t> place_of(std::string_view name, const kernels::PackedLayout& layout,
                                      std::span<const std::byte> source) const;
  const std::string& path() const { return path_; }

  // These bytes of it will not be read again.
  void release(std::span<const std::byte> bytes) const {
    file_.release(static_cast<std::size_t>(bytes.data() - file_.bytes().data()), bytes.size());
  }

  void release_all() const { file_.release(0, file_.bytes().size()); }

  struct Tensor {
    std::string name;
    kernels::PackedLayout layout;
    std::span<const std::byte> bytes;
    // Where they are not in memory: appends them.
    std::function<Status(const Append& append)> fill;
  };
  // Replaces what the folder has of this model. False: nothing was written, as a quarter of the
  // free space would not do.
  static Result<bool> write(const std::string& folder, const std::string& model,
                            std::span<const Tensor> tensors);

 private:
  struct Place {
    DType dtype;
    std::int64_t rows;
    std::int64_t columns;
    std::size_t offset;
  };
  std::string path_;
  MappedFile file_;
  std::map<std::string, Place, std::less<>> places_;
};

// The folder of the cache for them; empty: there is no cache.
std::string packed_folder();

// Panels of a matrix from their rows alone (the last one may have fewer than the others).
void pack_rows(const kernels::PackedLayout& layout, std::span<const std::byte> rows,
               std::span<std::byte> panels);

// Where the folder keeps a model's packed form.
std::string packed_path(const std::string& folder, const std::string& model);

}  // namespace hone::engine
