// Where a verb's words go: results on standard output, notes and progress on standard error.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/status.h"

namespace hone::cli {

using Json = nlohmann::ordered_json;

// With --json, standard output holds exactly one JSON document: the result, or {"error": {…}}.
class Output {
 public:
  Output(bool json, bool quiet) : json_(json), quiet_(quiet) {}

  bool json() const { return json_; }
  bool quiet() const { return quiet_; }
  // Colours and other escape sequences on standard output (NO_COLOR, terminals).
  bool color() const;
  // Somebody watches standard error, so a progress line makes sense.
  bool shows_progress() const;

  // Written as it is, to standard output.
  void print(std::string_view text);
  // The same, shown at once: streams of text.
  void stream(std::string_view text);
  // "note: …" on standard error.
  void note(std::string_view text);
  // The one document of --json, indented. Text that is not UTF-8 has U+FFFD in it.
  void document(const Json& value);
  // As document() in a --json call; text on standard error otherwise.
  void error(const Error& error);
  // Flushes; kIo if standard output did not take everything (a full disk).
  Status finish();

  std::string bold(std::string_view text) const;
  std::string dim(std::string_view text) const;

 private:
  bool json_;
  bool quiet_;
};

// {"code": …, "what": …, "where": …, "found": …, "expected": …, "try": …}; empty parts are left
// out.
Json error_document(const Error& error);

// Rows of text under a header, columns aligned; those named in `right` to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header, std::string_view right = {});
  void row(std::vector<std::string> cells);
  std::size_t rows() const { return rows_.size(); }
  // `indent` spaces in front of each line.
  std::string text(std::size_t indent = 0) const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the header is the first
  std::string right_;                           // one letter a column: 'l' or 'r'
};

// Characters of UTF-8 text, as columns of a terminal (wide characters count as one).
std::size_t columns_of(std::string_view text);
// Text out of an untrusted file, safe to print on a terminal: control characters escaped.
std::string visible(std::string_view text);

}  // namespace hone::cli
