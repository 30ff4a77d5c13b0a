// Fuzzes the GGUF reader: whatever parses is then read through, and one block of each tensor
// decoded.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "formats/adapter.h"
#include "formats/gguf.h"
#include "quant/codec.h"

namespace {

using hone::formats::GgufFile;
using hone::formats::meta_type_name;
using hone::formats::meta_value_text;
using hone::formats::Metadata;
using hone::formats::TensorRecord;

// Every getter on every key: a value or an error, and an error's text.
std::size_t read_metadata(const Metadata& metadata) {
  std::size_t total = 0;
  const auto count = [&](const auto& result) {
    total += result.ok() ? 1 : result.error().text().size();
  };
  for (const Metadata::Entry& entry : metadata.entries()) {
    total += meta_type_name(entry.value).size() + meta_value_text(entry.value).size();
    count(metadata.integer(entry.key));
    count(metadata.number(entry.key));
    count(metadata.boolean(entry.key));
    count(metadata.text(entry.key));
    count(metadata.texts(entry.key));
    count(metadata.integers(entry.key));
    count(metadata.floats(entry.key));
    count(metadata.booleans(entry.key));
  }
  return total;
}

std::size_t read_tensor(const TensorRecord& record) {
  const hone::DTypeInfo& info = hone::dtype_info(record.dtype);
  const auto bytes = static_cast<std::size_t>(info.bytes);
  if (record.data.size() < bytes) return 0;
  // The first and the last block: the ends are where a bound would be wrong.
  std::size_t total = 0;
  for (const auto block : {record.data.first(bytes), record.data.last(bytes)}) {
    const auto weights = hone::quant::dequantize(record.dtype, block);
    total += weights.ok() ? weights->size() : 0;
  }
  return total;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz.gguf");
  if (!file) return file.error().text().empty() ? std::abort(), 0 : 0;
  // As an adapter: sizes that agree, or an error with its text.
  const auto adapter = hone::formats::adapter_of_gguf(*file, "fuzz.gguf");
  if (adapter ? !hone::formats::check_adapter(*adapter).ok() : adapter.error().text().empty()) {
    std::abort();
  }
  std::size_t total = read_metadata(file->metadata());
  for (const TensorRecord& record : file->tensors()) {
    total += read_tensor(record) + static_cast<std::size_t>(record.elements());
    if (file->find(record.name) != &record) std::abort();
  }
  return total == SIZE_MAX ? 1 : 0;
}
