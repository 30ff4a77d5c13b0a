// Checkpoints: the whole state of a run in one file that is either complete and checked, or not
// there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace hone::tune {

// The file, all numbers little endian:
//   0   "HONECKP1"
//   8   u64: bytes of the header
//   16  64 hexadecimal digits: SHA-256 of bytes 8 … 16 and of the header
//   80  header, JSON: {"step", "metadata", "tensors": [{"name", "offset", "bytes", "xxh64"}]}
//   …   each tensor at its offset, a multiple of 64; zeros between; nothing after the last
// The header's hash covers the checksums of the tensors, and so every bit of the file is checked.

struct CheckpointTensor {
  std::string name;
  std::span<const std::byte> bytes;
  // Told each part that was read while it is written; empty: nobody.
  std::function<void(std::span<const std::byte>)> release = {};
};

// A file as it was written. Holds it mapped: the spans live as long as it does, at addresses that
// are multiples of 64.
class Checkpoint {
 public:
  // Reads and checks everything. kCorrupt says which part is damaged or where the file was cut.
  static Result<Checkpoint> open(const std::string& path);

  std::int64_t step() const { return step_; }
  const std::string& metadata_json() const { return metadata_; }
  std::span<const CheckpointTensor> tensors() const { return tensors_; }
  // kCorrupt if there is no tensor of this name, or if it has another size.
  Result<std::span<const std::byte>> find(std::string_view name, std::size_t bytes) const;
  const std::string& path() const { return file_.path(); }

 private:
  Checkpoint() = default;
  MappedFile file_;
  std::int64_t step_ = 0;
  std::string metadata_;
  std::vector<CheckpointTensor> tensors_;
};

// One file, wherever it is wanted: written beside, flushed, renamed.
Status write_checkpoint(const std::string& path, std::int64_t step, std::string_view metadata_json,
                        std::span<const CheckpointTensor> tensors);

// A run's folder of checkpoints, `checkpoint-<step>.hone`. One run a folder.
class CheckpointWriter {
 public:
  // Makes the folder. `keep` files stay, at least one; more only while a new one is being written.
  static Result<CheckpointWriter> open(const std::string& folder, int keep = 2);

  // Returns the path. Older files are removed once the new one is in its place, so that a failed
  // write (a full disk) leaves what was there; files of later steps are let be.
  Result<std::string> write(std::int64_t step, std::string_view metadata_json,
                            std::span<const CheckpointTensor> tensors);

 private:
  CheckpointWriter(std::string folder, int keep) : folder_(std::move(folder)), keep_(keep) {}
  std::string folder_;
  int keep_;
};

std::string checkpoint_path(const std::string& folder, std::int64_t step);

// What is found in a folder: the file of the latest step that is whole, and why later ones are not.
struct LatestCheckpoint {
  std::optional<Checkpoint> checkpoint;  // none: nothing to resume from
  std::vector<Error> skipped;            // broken files, to be told to the user
};
// kNotFound if there is no folder.
Result<LatestCheckpoint> latest_checkpoint(const std::string& folder);

}  // namespace hone::tune
