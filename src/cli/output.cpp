// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/progress.h"

namespace hone::cli {

bool Output::color() const { return !json_ && wants_color(STDOUT_FILENO); }
bool Output::shows_progress() const { return !quiet_ && is_terminal(STDERR_FILENO); }

void Output::print(std::string_view text) {
  // A failure stays on record in the stream; finish() reports it.
  (void)std::fwrite(text.data(), 1, text.size(), stdout);
}

void Output::stream(std::string_view text) {
  print(text);
  (void)std::fflush(stdout);
}

void Output::note(std::string_view text) {
  if (quiet_) return;
  const std::string line = fmt::format("note: {}\n", text);
  (void)std::fwrite(line.data(), 1, line.size(), stderr);
}

void Output::document(const Json& value) {
  print(value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void Output::error(const Error& error) {
  if (json_) {
    document(Json{{"error", error_document(error)}});
    return;
  }
  const bool color = wants_color(STDERR_FILENO);
  const std::string text = fmt::format("{}error:{} {}\n", color ? "\x1b[1;31m" : "",
                                       color ? "\x1b[0m" : "", visible(error.text()));
  (void)std::fwrite(text.data(), 1, text.size(), stderr);
}

Status Output::finish() {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && std::ferror(stdout) == 0) return {};
  return Error{ErrorCode::kIo,
               "standard output did not take everything",
               "standard output",
               errno == 0 ? "" : std::strerror(errno),  // NOLINT(concurrency-mt-unsafe)
               "",
               "make room where it goes, and run it again"};
}

std::string Output::bold(std::string_view text) const {
  return color() ? fmt::format("\x1b[1m{}\x1b[0m", text) : std::string(text);
}

std::string Output::dim(std::string_view text) const {
  return color() ? fmt::format("\x1b[2m{}\x1b[0m", text) : std::string(text);
}

Json error_document(const Error& error) {
  Json value{{"code", error_code_name(error.code)}, {"what", error.what}};
  if (!error.where.empty()) value["where"] = error.where;
  if (!error.found.empty()) value["found"] = error.found;
  if (!error.expected.empty()) value["expected"] = error.expected;
  if (!error.advice.empty()) value["try"] = error.advice;
  return value;
}

Table::Table(std::vector<std::string> header, std::string_view right) : right_(right) {
  right_.resize(header.size(), 'l');
  rows_.push_back(std::move(header));
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(right_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::text(std::size_t indent) const {
  std::vector<std::size_t> widths(right_.size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], columns_of(row[i]));
    }
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line(indent, ' ');
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - columns_of(row[i]), ' ');
      if (i > 0) line += "  ";
      line += right_[i] == 'r' ? padding + row[i] : row[i] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::size_t columns_of(std::string_view text) {
  const auto leads = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; };
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), leads));
}

std::string visible(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    const auto code = static_cast<unsigned char>(byte);
    if (code == '\n' || code == '\t' || (code >= 0x20 && code != 0x7F)) {
      out += byte;
    } else {
      out += fmt::format("\\x{:02x}", code);
    }
  }
  return out;
}

}  // namespace hone::cli
