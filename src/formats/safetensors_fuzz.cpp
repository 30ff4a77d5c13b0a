// Fuzzes the safetensors reader and its index; whatever parses is read through.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "formats/safetensors.h"
#include "formats/safetensors_header.h"
#include "quant/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hone::formats;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // An index starts as JSON does; anything else is a file.
  if (text.starts_with("{")) {
    const auto index = parse_safetensors_index(text, "fuzz.index.json");
    if (!index && index.error().text().empty()) std::abort();
    return 0;
  }
  const auto file = Safetensors::parse(std::as_bytes(std::span(data, size)), "fuzz.safetensors");
  if (!file) return file.error().text().empty() ? std::abort(), 0 : 0;
  std::size_t total = file->metadata().size();
  for (const TensorRecord& record : file->tensors()) {
    if (file->find(record.name) != &record) std::abort();
    total += static_cast<std::size_t>(record.elements());
    for (const std::byte byte : record.data) total += std::to_integer<std::size_t>(byte);
    const auto weights = hone::quant::dequantize(record.dtype, record.data);
    total += weights.ok() ? weights->size() : 0;
  }
  return total == SIZE_MAX ? 1 : 0;
}
