// All model families: expanded from models/list.inc.
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "models/family.h"

namespace hone::models {

std::span<const Family* const> all_families() {
  static const std::array kFamilies = {
#define HONE_MODEL(name) &name##_family(),
#include "models/list.inc"
#undef HONE_MODEL
  };
  return kFamilies;
}

const Family* find_family(std::string_view architecture) {
  for (const Family* family : all_families()) {
    if (family->architecture == architecture) return family;
  }
  return nullptr;
}

const Family* find_hugging_face_family(std::string_view type) {
  for (const Family* family : all_families()) {
    // Gemma 3 calls its text model "gemma3_text".
    if (family->hugging_face_type == type) return family;
  }
  return nullptr;
}

}  // namespace hone::models
