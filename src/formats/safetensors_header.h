// The JSON inside safetensors files and their index, read as a stream of events: duplicate keys are
// seen, nesting is bounded, and nothing is allocated that the text does not pay for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"

namespace hone::formats {

struct SafetensorsEntry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<std::vector<std::int64_t>> shape;
  std::vector<std::uint64_t> data_offsets;  // begin and end, from the start of the data
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  // in the text's order, names unique, all fields there
  std::map<std::string, std::string> metadata;
};

// `where` is the file's name and `first_byte` the text's place in it, for errors.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, const std::string& where,
                                                   std::uint64_t first_byte);

// "weight_map" of an index: tensor to file, both checked (plain file names, no folders).
Result<std::map<std::string, std::string>> parse_safetensors_index(std::string_view text,
                                                                   const std::string& where);

// "BF16" for kBF16; empty for a type that safetensors lacks.
std::string_view safetensors_dtype_name(DType dtype);

}  // namespace hone::formats
