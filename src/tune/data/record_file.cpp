// Tells the forms of data files apart and cuts them into records.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/record_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <optional>

#include "formats/tokenizer_utf8.h"
#include "tune/data/csv.h"

namespace hone::tune {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kMark = "\xEF\xBB\xBF";  // UTF-8's byte order mark

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::size_t lines_in(std::string_view text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

// A value out of JSON text that begins at `line` of its file.
Result<Json> parse_json(std::string_view text, std::size_t line) {
  // "[json.exception…] parse error at line 1, column 3: syntax error while …"
  const auto broken = [&](std::string_view told, std::size_t byte) {
    const std::size_t at = std::min(byte == 0 ? 0 : byte - 1, text.size());
    const std::string_view before = text.substr(0, at);
    const std::size_t start = before.rfind('\n') == before.npos ? 0 : before.rfind('\n') + 1;
    const std::string column = byte == 0 ? "" : fmt::format(", column {}", at - start + 1);
    const std::size_t behind = told.find(byte == 0 ? "] " : ": ");
    if (behind != told.npos) told.remove_prefix(behind + 2);
    return Error{ErrorCode::kCorrupt,
                 "this is not JSON",
                 fmt::format("line {}{}", line + lines_in(before), column),
                 excerpt(told, 200),
                 "one complete value",
                 ""};
  };
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    return broken(error.what(), error.byte);
  } catch (const Json::exception& error) {  // a number that no double holds
    return broken(error.what(), 0);
  }
}

void add(const Result<Record>& record, std::size_t number, std::size_t line, FileForm form,
         RecordFile& file) {
  if (record) {
    file.records.push_back(*record);
    file.records.back().number = number;
    file.records.back().line = line;
  } else {
    // A parser's error has its own, more exact place.
    const bool placed = record.error().where.starts_with("line ");
    file.bad.push_back(
        {number, line, placed ? record.error() : record.error().in(place_of(form, number, line))});
  }
}

Result<Record> record_of_text(std::string_view text, std::size_t line) {
  auto value = parse_json(text, line);
  if (!value) return value.error();
  return record_of_json(*value);
}

RecordFile read_lines(std::string_view text) {
  RecordFile file;
  file.form = FileForm::kJsonLines;
  std::size_t number = 0;
  for (std::size_t line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view content = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (content.empty()) continue;
    add(record_of_text(content, line), ++number, line, file.form, file);
  }
  return file;
}

Error never_closed(std::size_t line) {
  return {ErrorCode::kCorrupt,          "a JSON list is never closed",
          fmt::format("line {}", line), "the end of the file inside of the record that begins here",
          "a closing bracket",          "the file seems truncated: make it again"};
}

// Where the element that begins at `at` ends: at the comma or the bracket behind it.
std::size_t end_of_element(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  bool quoted = false;
  for (; at < text.size(); ++at) {
    const char letter = text[at];
    if (quoted) {
      if (letter == '\\') ++at;
      quoted = letter != '"';
    } else if (letter == '"') {
      quoted = true;
    } else if (letter == '{' || letter == '[') {
      ++depth;
    } else if (depth == 0 && (letter == ',' || letter == ']')) {
      return at;
    } else if (letter == '}' || letter == ']') {
      depth -= depth > 0 ? 1 : 0;
    }
  }
  return text.npos;
}

// `text` begins with the bracket, which is in line `line`. Elements are parsed one by one, so that
// each error has its place and no tree of the whole file is needed.
Result<RecordFile> read_list(std::string_view text, std::size_t line) {
  RecordFile file;
  file.form = FileForm::kJson;
  std::size_t at = 1;
  for (std::size_t number = 1;; ++number) {
    const std::size_t begin = text.find_first_not_of(kSpace, at);
    line += lines_in(text.substr(at, (begin == text.npos ? text.size() : begin) - at));
    if (begin == text.npos) return never_closed(line);
    at = begin;
    if (number == 1 && text[at] == ']') break;
    const std::size_t end = end_of_element(text, at);
    if (end == text.npos) return never_closed(line);
    add(record_of_text(trimmed(text.substr(at, end - at)), line), number, line, file.form, file);
    line += lines_in(text.substr(at, end - at));
    at = end;
    if (text[at] == ']') break;
    ++at;
  }
  const std::string_view rest = trimmed(text.substr(at + 1));
  if (rest.empty()) return file;
  return Error{ErrorCode::kCorrupt,          "something follows the JSON list",
               fmt::format("line {}", line), fmt::format("'{}'", excerpt(rest)),
               "the end of the file",        "keep one list in the file"};
}

// One JSON object that is the whole file: a record, or a list of them under some name.
Result<RecordFile> read_object(std::string_view text, std::size_t line) {
  auto value = parse_json(text, line);
  if (!value) return value.error();
  RecordFile file;
  file.form = FileForm::kJson;
  std::vector<std::string> names;
  const Json* list = nullptr;
  for (const auto& [name, member] : value->items()) {
    names.push_back(name);
    const bool records = member.is_array() && !member.empty() && member.front().is_object();
    if (records && list == nullptr) list = &member;
  }
  if (is_record_header(names) || list == nullptr) {
    if (lines_in(trimmed(text)) == 0) file.form = FileForm::kJsonLines;  // of one line
    add(record_of_json(*value), 1, line, file.form, file);
    return file;
  }
  for (const Json& member : *list) {
    add(record_of_json(member), file.records.size() + file.bad.size() + 1, 0, file.form, file);
  }
  return file;
}

struct CsvHeader {
  char separator = ',';
  std::vector<std::string> names;  // lower case
  bool known = false;              // they make a record
};

CsvHeader header_of(std::string_view text) {
  CsvHeader best;
  for (const char separator : {',', ';', '\t'}) {
    CsvReader reader(text, separator);
    CsvRow row;
    const auto read = reader.next(row);
    if (!read || !*read) continue;
    CsvHeader header{separator, {}, false};
    for (const std::string& field : row.fields) {
      std::string name(trimmed(field));
      std::transform(name.begin(), name.end(), name.begin(), [](char c) {
        return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      });
      header.names.push_back(std::move(name));
    }
    header.known = row.problem.empty() && is_record_header(header.names);
    if (header.known || header.names.size() > best.names.size()) best = std::move(header);
    if (best.known) break;
  }
  return best;
}

Result<Record> record_of_row(const CsvRow& row, const CsvHeader& header) {
  const auto wrong = [](std::string what, std::string found, std::string expected) {
    return Error{ErrorCode::kCorrupt, std::move(what),     "",
                 std::move(found),    std::move(expected), "quote the field: \"…\""};
  };
  if (!row.problem.empty()) {
    return wrong("the row breaks the rules of CSV", row.problem,
                 "fields with separators, quotes or line ends in quotes, quotes in them doubled");
  }
  if (row.fields.size() != header.names.size()) {
    return wrong("the row has not as many fields as the header",
                 fmt::format("{} fields", row.fields.size()),
                 fmt::format("{}: {}", header.names.size(),
                             excerpt(fmt::format("{}", fmt::join(header.names, ", ")), 100)));
  }
  Json value = Json::object();
  for (std::size_t i = 0; i < row.fields.size(); ++i) {
    const std::size_t broken = formats::find_invalid_utf8(row.fields[i]);
    if (broken < row.fields[i].size()) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("field \"{}\" is not UTF-8", excerpt(header.names[i])),
                   "",
                   fmt::format("byte 0x{:02X}", static_cast<unsigned char>(row.fields[i][broken])),
                   "text in UTF-8",
                   "save the table as UTF-8"};
    }
    value[header.names[i]] = row.fields[i];
  }
  return record_of_json(value);
}

Result<RecordFile> read_table(std::string_view text, const CsvHeader& header) {
  RecordFile file;
  file.form = FileForm::kCsv;
  CsvReader reader(text, header.separator);
  CsvRow row;
  for (std::size_t number = 0;; ++number) {
    auto more = reader.next(row);
    if (!more) return more.error();
    if (!*more) return file;
    if (number > 0) add(record_of_row(row, header), number, row.line, file.form, file);
  }
}

// "jsonl" of "a/b.JSONL".
std::string ending_of(const std::string& name) {
  const std::size_t dot = name.find_last_of("./");
  if (dot == name.npos || name[dot] == '/') return "";
  std::string ending = name.substr(dot + 1);
  std::transform(ending.begin(), ending.end(), ending.begin(), [](char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  });
  return ending;
}

// What the name promises and the content is not.
std::optional<Error> broken_promise(std::string_view text, const std::string& name,
                                    const CsvHeader& header) {
  const std::string ending = ending_of(name);
  const std::string first =
      excerpt(trimmed(text.substr(0, text.find('\n', text.find_first_not_of(kSpace)))));
  if (ending == "json" || ending == "jsonl" || ending == "ndjson") {
    return Error{ErrorCode::kCorrupt,
                 "the file's name promises JSON, and it holds something else",
                 "line 1",
                 fmt::format("'{}'", first),
                 "an object a line ({…}), or a list of objects ([…])",
                 "if it is plain text, call it .txt"};
  }
  if (ending == "csv" || ending == "tsv") {
    return Error{ErrorCode::kCorrupt,
                 "the table's header has no names that hone knows",
                 "line 1",
                 fmt::format("'{}', {} columns", first, header.names.size()),
                 "columns: " + known_shapes(),
                 "rename the columns; if it is plain text, call it .txt"};
  }
  return std::nullopt;
}

Status check_text(std::string_view text) {
  const auto place = [text](std::size_t at) {
    return fmt::format("line {}, byte {}", lines_in(text.substr(0, at)) + 1, at);
  };
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    return Error{ErrorCode::kUnsupported, "the file is UTF-16", "byte 0",
                 "its byte order mark",   "text in UTF-8",      "save it as UTF-8"};
  }
  if (const std::size_t zero = text.find('\0'); zero != text.npos) {
    return Error{ErrorCode::kCorrupt,
                 "the file holds NUL bytes: it is no text",
                 place(zero),
                 "a byte 0x00",
                 "JSON lines, a JSON list, CSV or plain text, in UTF-8",
                 "give the data itself, not an archive or a table in a binary form"};
  }
  return {};
}

Result<RecordFile> read_plain(std::string_view text) {
  const std::size_t broken = formats::find_invalid_utf8(text);
  if (broken < text.size()) {
    return Error{ErrorCode::kCorrupt,
                 "the text is not UTF-8",
                 fmt::format("line {}, byte {}", lines_in(text.substr(0, broken)) + 1, broken),
                 fmt::format("byte 0x{:02X}", static_cast<unsigned char>(text[broken])),
                 "text in UTF-8",
                 "save it as UTF-8"};
  }
  RecordFile file;
  Record record;
  record.number = 1;
  record.line = 1;
  record.text = text;
  file.records.push_back(std::move(record));
  return file;
}

}  // namespace

std::string_view file_form_name(FileForm form) {
  switch (form) {
    case FileForm::kJsonLines: return "JSON lines";
    case FileForm::kJson: return "JSON";
    case FileForm::kCsv: return "CSV";
    case FileForm::kText: return "plain text";
  }
  return "?";
}

std::string place_of(FileForm form, std::size_t number, std::size_t line) {
  if (form == FileForm::kJsonLines || form == FileForm::kCsv) return fmt::format("line {}", line);
  if (form == FileForm::kText) return fmt::format("piece {}", number);
  if (line == 0) return fmt::format("record {}", number);
  return fmt::format("record {} (line {})", number, line);
}

Result<RecordFile> read_records(std::string_view text, const std::string& name) {
  if (text.starts_with(kMark)) text.remove_prefix(kMark.size());
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) {
    return Error{ErrorCode::kCorrupt, "the file is empty",    name,
                 "no text",           "at least one example", ""};
  }
  const auto located = [&name](const Error& error) { return error.in(name); };
  if (const Status sound = check_text(text); !sound) return located(sound.error());
  const std::size_t line = lines_in(text.substr(0, begin)) + 1;
  const std::size_t behind = std::min(text.find_first_not_of(kSpace, begin + 1), text.size());
  const char next = behind < text.size() ? text[behind] : '\0';
  Result<RecordFile> file = RecordFile();
  if (text[begin] == '[' &&
      (next == '{' || next == '[' || next == '"' || next == ']' || next == '\0')) {
    file = read_list(text.substr(begin), line);
  } else if (text[begin] == '{' && (next == '"' || next == '}' || next == '\0')) {
    // Of several lines, parsing ends at the second.
    file = Json::accept(text) ? read_object(text, line) : Result<RecordFile>(read_lines(text));
  } else {
    const CsvHeader header = header_of(text);
    if (header.known) {
      file = read_table(text, header);
    } else if (auto broken = broken_promise(text, name, header)) {
      file = *std::move(broken);
    } else {
      file = read_plain(text);
    }
  }
  if (!file) return located(file.error());
  return file;
}

}  // namespace hone::tune
