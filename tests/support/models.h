// Small models for tests: the golden folders as they are, and copies of them with quantized
// weights.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/file.h"
#include "base/system.h"
#include "engine/session.h"
#include "formats/gguf.h"
#include "quant/codec.h"

namespace hone::testing_models {
// Removes the copies when the tests end.
struct Copies {
  std::vector<std::string> paths;
  ~Copies() {
    std::error_code ignored;
    for (const std::string& path : paths) std::filesystem::remove(path, ignored);
  }
};

// tests/golden/models/<name>
inline std::string golden_folder(const std::string& name) {
  return std::string(HONE_SOURCE_DIR) + "/tests/golden/models/" + name;
}

inline std::vector<engine::TokenId> golden_tokens(const std::string& name) {
  const auto text = read_file(golden_folder(name) + "/tokens.json");
  if (!text) return {};
  return nlohmann::json::parse(*text, nullptr, false)["tokens"].get<std::vector<engine::TokenId>>();
}

// A GGUF file with the golden model's weights, matrices in `dtype` where their columns allow it:
// what the integer path runs on. In the system's folder for temporary files, made once a process;
// empty where it could not be made.
inline std::string quantized_copy(const std::string& name, DType dtype) {
  static Copies copies;
  const std::string path = (std::filesystem::temp_directory_path() /
                            fmt::format("hone_{}_{}_{}.gguf", name, dtype_name(dtype), getpid()))
                               .string();
  if (std::filesystem::exists(path)) return path;
  const auto source = engine::ModelSource::open_folder(golden_folder(name));
  if (!source) return "";
  std::vector<formats::GgufTensorToWrite> tensors;
  std::vector<std::vector<std::byte>> memory;
  memory.reserve(source->tensors().size());
  for (const formats::TensorRecord& tensor : source->tensors()) {
    const bool fits = tensor.shape.size() == 2 && tensor.name.find("norm") == std::string::npos &&
                      tensor.shape[1] % dtype_info(dtype).block == 0;
    const DType to = fits ? dtype : tensor.dtype;
    const auto numbers = quant::dequantize(tensor.dtype, tensor.data);
    if (!numbers) return "";
    auto bytes = quant::quantize(to, *numbers);
    if (!bytes) return "";
    memory.push_back(*std::move(bytes));
    tensors.push_back({tensor.name, to, tensor.shape, memory.back(), nullptr});
  }
  if (!formats::write_gguf(path, source->metadata(), tensors).ok()) return "";
  copies.paths.push_back(path);
  return path;
}

// A model's file in the cache; empty where it is absent.
inline std::string cached_model(const std::string& file) {
  const std::string path = cache_folder() + "/models/" + file;
  return std::filesystem::exists(path) ? path : "";
}

// The logits of all tokens (N * V floats), run in one step.
inline Result<std::vector<float>> all_logits(engine::Session& session,
                                             std::span<const engine::TokenId> tokens) {
  const engine::SequenceId sequence = session.begin();
  const engine::Request request{sequence, tokens, engine::Wanted::kAll};
  const auto logits = session.step(std::span(&request, 1));
  session.end(sequence);
  if (!logits) return logits.error();
  return std::vector<float>(logits->begin(), logits->end());
}

}  // namespace hone::testing_models
