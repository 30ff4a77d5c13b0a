// A model written as a Hugging Face folder: config.json, model.safetensors, tokenizer.json.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"
#include "engine/model_source.h"
#include "models/family.h"

namespace hone::engine {

struct ExportOptions {
  DType type = DType::kBF16;  // of the matrices: f32, f16 or bf16; vectors become f32
  // Told the bytes read so far; false stops the work (kInvalidArgument).
  std::function<bool(std::int64_t done)> watch;
};

// Makes the folder, which must be empty or absent; config.json is written last, so that what is
// there without it is no model. Quantized weights are decoded exactly and then rounded to the type.
// kUnsupported for architectures, tensors and tokenizers that the other side has no words for.
Status export_folder(const ModelSource& source, const std::string& path,
                     const ExportOptions& options);

// The texts of the files, for export_folder and the tests.
struct TokenizerFiles {
  std::string tokenizer;  // tokenizer.json
  std::string config;     // tokenizer_config.json
};
Result<TokenizerFiles> tokenizer_files(const formats::Vocabulary& vocabulary);
Result<std::string> hugging_face_config(const ModelSource& source, const models::Family& family,
                                        DType type);

}  // namespace hone::engine
