// Normalization before tokenization: Unicode forms, plain replacements, a prefix.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "formats/vocabulary.h"

namespace hone::formats {

// Applies the steps in order. Bytes that are not UTF-8 stay as they are.
std::string normalize(std::span<const NormalizerStep> steps, std::string_view text);

// Every `pattern` (not empty) in `text` becomes `content`.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace hone::formats
