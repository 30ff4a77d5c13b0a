// SPDX-License-Identifier: Apache-2.0
#include "engine/model_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>

#include "engine/hugging_face.h"
#include "engine/tensor_change.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace hone::engine {
namespace {

namespace fs = std::filesystem;
using formats::TensorRecord;

// TensorRecord::file of tensors that are owned copies.
constexpr std::size_t kOwned = std::numeric_limits<std::size_t>::max();

bool is_file(const fs::path& path) {
  std::error_code code;
  return fs::is_regular_file(path, code);
}

// The text of an optional file; empty where there is none.
Result<std::string> optional_text(const fs::path& path) {
  if (!is_file(path)) return std::string();
  return read_file(path.string());
}

// Buffers that files carry along and no computation reads.
bool is_ignorable(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.bias") ||
         name.ends_with(".attn.masked_bias");
}

// The family's name for a tensor of the folder; some checkpoints leave out the outermost module.
std::optional<NamedTensor> name_of(const models::Family& family, const std::string& name) {
  if (auto found = gguf_name(family, name)) return found;
  for (const char* module : {"model.", "transformer."}) {
    if (auto found = gguf_name(family, module + name)) return found;
  }
  return std::nullopt;
}

}  // namespace

struct ModelSource::State {
  std::string path;
  bool folder = false;
  formats::GgufFile gguf;
  formats::Safetensors safetensors;
  formats::Metadata metadata;
  std::vector<TensorRecord> tensors;
  std::map<std::string, std::size_t, std::less<>> index;
  std::vector<std::vector<std::byte>> owned;
  std::vector<std::int64_t> end_of_generation;
  std::int64_t file_bytes = 0;

  const formats::Metadata& described() const { return folder ? metadata : gguf.metadata(); }
  Status take_tensors(const HuggingFaceConfig& config);
  Status take_tensor(const TensorRecord& record, const NamedTensor& named, const HeadCounts& heads);
  void add_owned(std::string name, ChangedTensor tensor);
  void make_index() {
    for (std::size_t i = 0; i < tensors.size(); ++i) index.emplace(tensors[i].name, i);
  }
};

void ModelSource::State::add_owned(std::string name, ChangedTensor tensor) {
  owned.push_back(std::move(tensor.data));
  TensorRecord record;
  record.name = std::move(name);
  record.dtype = tensor.dtype;
  record.shape = std::move(tensor.shape);
  record.data = owned.back();  // the bytes stay where they are when `owned` grows
  record.file = kOwned;
  tensors.push_back(std::move(record));
}

Status ModelSource::State::take_tensor(const TensorRecord& record, const NamedTensor& named,
                                       const HeadCounts& heads) {
  if (named.change == models::Change::kNone) {
    TensorRecord renamed = record;
    renamed.name = named.name;
    tensors.push_back(std::move(renamed));
    return {};
  }
  auto changed = to_gguf(named.change, record.dtype, record.shape, record.data, heads);
  if (!changed) {
    return changed.error().in(
        fmt::format("{}, tensor '{}'", path, formats::printable(record.name)));
  }
  add_owned(named.name, *std::move(changed));
  return {};
}

Status ModelSource::State::take_tensors(const HuggingFaceConfig& config) {
  const std::string architecture(config.family->architecture);
  const auto heads_of = [&](const char* key, std::int64_t otherwise) {
    return metadata.integer_or(architecture + key, otherwise);
  };
  const auto query = heads_of(".attention.head_count", 0);
  if (!query) return query.error();
  const auto key = heads_of(".attention.head_count_kv", *query);
  if (!key) return key.error();
  const HeadCounts heads{*query, *key};
  bool has_output = false;
  for (const TensorRecord& record : safetensors.tensors()) {
    if (is_ignorable(record.name)) continue;
    const auto named = name_of(*config.family, record.name);
    if (!named) {
      return Error{ErrorCode::kUnsupported,
                   "the model has a tensor that hone does not know",
                   path,
                   fmt::format("'{}', {}", formats::printable(record.name),
                               formats::shape_text(record.shape)),
                   fmt::format("tensors of {}", config.family->hugging_face_class),
                   "adapters and parts for images have to be merged or left out before"};
    }
    if (named->name == "output.weight") {
      if (config.tied) continue;  // a copy of the embedding
      has_output = true;
    }
    HONE_RETURN_IF_ERROR(take_tensor(record, *named, heads));
  }
  if (!config.tied && !has_output) {
    return Error{ErrorCode::kNotFound,
                 "the model has no output matrix",
                 path,
                 "no tensor lm_head.weight, and tie_word_embeddings is false",
                 "one or the other",
                 ""};
  }
  if (!config.rope_factors.empty()) {
    ChangedTensor factors;
    factors.shape = {static_cast<std::int64_t>(config.rope_factors.size())};
    factors.data.resize(config.rope_factors.size() * sizeof(float));
    std::memcpy(factors.data.data(), config.rope_factors.data(), factors.data.size());
    add_owned("rope_freqs.weight", std::move(factors));
  }
  return {};
}

Result<ModelSource> ModelSource::open(const std::string& model) {
  const auto path = resolve_model(model);
  if (!path) return path.error();
  std::error_code code;
  return fs::is_directory(*path, code) ? open_folder(*path) : open_gguf(*path);
}

Result<ModelSource> ModelSource::open_gguf(const std::string& path) {
  auto file = formats::GgufFile::open(path);
  if (!file) return file.error();
  auto state = std::make_unique<State>();
  state->path = path;
  state->gguf = *std::move(file);
  state->tensors.assign(state->gguf.tensors().begin(), state->gguf.tensors().end());
  state->file_bytes = static_cast<std::int64_t>(state->gguf.file().bytes().size());
  state->make_index();
  return ModelSource(std::move(state));
}

Result<ModelSource> ModelSource::open_folder(const std::string& path) {
  const fs::path folder(path);
  if (!is_file(folder / "config.json")) {
    return Error{ErrorCode::kNotFound,
                 "the folder holds no model",
                 path,
                 "no config.json",
                 "config.json, model.safetensors (or its shards) and tokenizer.json",
                 "give the folder itself, or a GGUF file"};
  }
  const auto text = read_file((folder / "config.json").string());
  if (!text) return text.error();
  auto config = read_hugging_face_config(*text, (folder / "config.json").string());
  if (!config) return config.error();
  auto state = std::make_unique<State>();
  state->path = path;
  state->folder = true;
  state->metadata = std::move(config->metadata);
  state->end_of_generation = config->end_of_generation;
  const fs::path named = fs::absolute(folder).lexically_normal();
  state->metadata.set("general.name",
                      (named.has_filename() ? named : named.parent_path()).filename().string());
  auto tensors = formats::Safetensors::open(path);
  if (!tensors) return tensors.error();
  state->safetensors = *std::move(tensors);
  for (const MappedFile& file : state->safetensors.files()) {
    state->file_bytes += static_cast<std::int64_t>(file.bytes().size());
  }
  HONE_RETURN_IF_ERROR(state->take_tensors(*config));
  state->make_index();
  return ModelSource(std::move(state));
}

const std::string& ModelSource::path() const { return state_->path; }
const formats::Metadata& ModelSource::metadata() const { return state_->described(); }
std::span<const TensorRecord> ModelSource::tensors() const { return state_->tensors; }

const TensorRecord* ModelSource::find(std::string_view name) const {
  const auto found = state_->index.find(name);
  return found == state_->index.end() ? nullptr : &state_->tensors[found->second];
}

Result<formats::Vocabulary> ModelSource::vocabulary() const {
  if (!state_->folder) return formats::vocabulary_from_gguf(state_->gguf.metadata());
  const fs::path folder(state_->path);
  const auto tokenizer = optional_text(folder / "tokenizer.json");
  if (!tokenizer) return tokenizer.error();
  if (tokenizer->empty()) {
    return Error{ErrorCode::kNotFound,
                 "the model has no tokenizer",
                 state_->path,
                 "no tokenizer.json",
                 "tokenizer.json beside config.json",
                 "save it with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)"};
  }
  const auto config = optional_text(folder / "tokenizer_config.json");
  if (!config) return config.error();
  auto vocabulary = formats::vocabulary_from_tokenizer_json(*tokenizer, *config);
  if (!vocabulary) return vocabulary.error().in(state_->path);
  const auto chat = optional_text(folder / "chat_template.jinja");
  if (!chat) return chat.error();
  if (!chat->empty()) vocabulary->chat_template = *chat;
  for (const std::int64_t id : state_->end_of_generation) {
    std::vector<formats::TokenId>& ends = vocabulary->end_of_generation;
    const auto token = static_cast<formats::TokenId>(id);
    const bool known = id >= 0 && id < static_cast<std::int64_t>(vocabulary->size());
    if (known && std::find(ends.begin(), ends.end(), token) == ends.end()) ends.push_back(token);
  }
  return vocabulary;
}

std::int64_t ModelSource::file_bytes() const { return state_->file_bytes; }

std::optional<ModelSource::FilePlace> ModelSource::file_place(const TensorRecord& tensor) const {
  const auto offset = static_cast<std::int64_t>(tensor.file_offset);
  if (!state_->folder) return FilePlace{state_->gguf.file().path(), offset};
  const auto files = state_->safetensors.files();
  if (tensor.file >= files.size()) return std::nullopt;
  return FilePlace{files[tensor.file].path(), offset};
}

void ModelSource::release(const TensorRecord& tensor, std::size_t offset, std::size_t size) const {
  if (!state_->folder) {
    state_->gguf.file().release(tensor.file_offset + offset, size);
  } else if (tensor.file < state_->safetensors.files().size()) {
    state_->safetensors.files()[tensor.file].release(tensor.file_offset + offset, size);
  }
}

Status ModelSource::each_part(
    const TensorRecord& tensor,
    const std::function<Status(std::span<const std::byte>)>& visit) const {
  constexpr std::size_t kPart = std::size_t{8} << 20;
  for (std::size_t at = 0; at < tensor.data.size(); at += kPart) {
    const std::size_t size = std::min(kPart, tensor.data.size() - at);
    HONE_RETURN_IF_ERROR(visit(tensor.data.subspan(at, size)));
    release(tensor, at, size);
  }
  return {};
}

void ModelSource::release_header() const {
  std::size_t first = SIZE_MAX;
  for (const TensorRecord& tensor : tensors()) first = std::min(first, tensor.file_offset);
  if (!state_->folder && first != SIZE_MAX) state_->gguf.file().release(0, first);
}

ModelSource::ModelSource(std::unique_ptr<State> state) : state_(std::move(state)) {}
ModelSource::ModelSource(ModelSource&&) noexcept = default;
ModelSource& ModelSource::operator=(ModelSource&&) noexcept = default;
ModelSource::~ModelSource() = default;

}  // namespace hone::engine
