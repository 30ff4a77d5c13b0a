// A reader of comma-separated values.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/csv.h"

#include <fmt/format.h>

namespace hone::tune {

// `at_` is behind the opening quote; afterwards it is behind the closing one.
Status CsvReader::quoted_field(CsvRow& row, std::string& field) {
  const std::size_t opened = line_;
  while (at_ < text_.size()) {
    const char letter = text_[at_++];
    if (letter == '\n') ++line_;
    if (letter != '"') {
      field.push_back(letter);
    } else if (at_ < text_.size() && text_[at_] == '"') {
      field.push_back('"');
      ++at_;
    } else {
      return {};
    }
  }
  return Error{
      ErrorCode::kCorrupt,
      "a quoted field is never closed",
      fmt::format("line {}", opened),
      fmt::format("an opening quote in field {}, then the end of the file", row.fields.size() + 1),
      "a closing quote; quotes inside of a quoted field doubled (\"\")",
      "close the quote, or double it if it belongs to the text"};
}

Result<bool> CsvReader::next(CsvRow& row) {
  row = {};
  while (at_ < text_.size() && (text_[at_] == '\n' || text_[at_] == '\r')) {
    if (text_[at_++] == '\n') ++line_;
  }
  if (at_ >= text_.size()) return false;
  row.line = line_;
  std::string field;
  bool quoted = false;
  for (;;) {
    const bool end = at_ >= text_.size();
    const char letter = end ? '\n' : text_[at_];
    const bool line_end =
        letter == '\n' || (letter == '\r' && (at_ + 1 >= text_.size() || text_[at_ + 1] == '\n'));
    if (line_end || letter == separator_) {
      row.fields.push_back(std::move(field));
      field.clear();
      quoted = false;
      if (end) return true;
      ++at_;
      if (letter == separator_) continue;
      if (letter == '\r' && at_ < text_.size()) ++at_;
      ++line_;
      return true;
    }
    ++at_;
    if (letter == '"' && field.empty() && !quoted) {
      quoted = true;
      HONE_RETURN_IF_ERROR(quoted_field(row, field));
    } else {
      if (row.problem.empty() && quoted) {
        row.problem =
            fmt::format("text behind the closing quote of field {}", row.fields.size() + 1);
      } else if (row.problem.empty() && letter == '"') {
        row.problem =
            fmt::format("a quote inside of field {}, which is not quoted", row.fields.size() + 1);
      }
      field.push_back(letter);
    }
  }
}

}  // namespace hone::tune
