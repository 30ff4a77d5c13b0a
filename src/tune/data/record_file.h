// A file of training data as records: JSON lines, a JSON list, comma-separated values or plain
// text, told apart by looking.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tune/data/record.h"

namespace hone::tune {

enum class FileForm : std::uint8_t { kJsonLines, kJson, kCsv, kText };
std::string_view file_form_name(FileForm form);

// A record that could not be read; `reason` says where in the file.
struct BadRecord {
  std::size_t number = 0;
  std::size_t line = 0;
  Error reason;
};

struct RecordFile {
  FileForm form = FileForm::kText;
  std::vector<Record> records;
  std::vector<BadRecord> bad;
};

// "line 12", or "record 3" where lines say little.
std::string place_of(FileForm form, std::size_t number, std::size_t line);

// Plain text becomes one record. `name` is the file's, for errors; its ending is a hint only where
// the content is no known form. An error is one that no single record is to blame for: an empty
// file, bytes that are no text, a list or a quote that is never closed.
Result<RecordFile> read_records(std::string_view text, const std::string& name);

}  // namespace hone::tune
