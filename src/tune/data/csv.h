// Comma-separated values (RFC 4180): quoted fields, doubled quotes, line ends inside of quotes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::tune {

struct CsvRow {
  std::size_t line = 0;  // where it begins, from 1
  std::vector<std::string> fields;
  std::string problem;  // what breaks the rules inside of this row alone; empty: nothing
};

// Reads a text row by row; the text must outlive the reader. Empty lines are skipped. LF and CRLF
// end a row.
class CsvReader {
 public:
  CsvReader(std::string_view text, char separator) : text_(text), separator_(separator) {}

  // The next row; false at the end. kCorrupt with the line of a quote that is never closed: what
  // lies behind it cannot be told apart any more.
  Result<bool> next(CsvRow& row);

 private:
  Status quoted_field(CsvRow& row, std::string& field);

  std::string_view text_;
  char separator_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

}  // namespace hone::tune
