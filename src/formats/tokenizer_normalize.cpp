// Unicode normalization through utf8proc.
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer_normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "formats/tokenizer_utf8.h"

namespace hone::formats {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char byte) { return static_cast<unsigned char>(byte) < 0x80; });
}

int form_options(NormalizerStep::Kind kind) {
  switch (kind) {
    case NormalizerStep::Kind::kNfc: return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    case NormalizerStep::Kind::kNfd: return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    case NormalizerStep::Kind::kNfkc: return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    default: return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  }
}

void append_form(NormalizerStep::Kind kind, std::string_view valid, std::string& out) {
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(valid.data()),
                   static_cast<utf8proc_ssize_t>(valid.size()), &made,
                   static_cast<utf8proc_option_t>(form_options(kind)));
  if (length < 0) {
    out.append(valid);  // out of memory, or longer than the library counts
    return;
  }
  out.append(reinterpret_cast<const char*>(made), static_cast<std::size_t>(length));
  std::free(made);  // NOLINT: utf8proc allocates with malloc
}

std::string to_form(NormalizerStep::Kind kind, std::string_view text) {
  if (is_ascii(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t invalid = find_invalid_utf8(text, position);
    if (invalid > position) append_form(kind, text.substr(position, invalid - position), out);
    if (invalid < text.size()) out.push_back(text[invalid]);
    position = invalid + 1;
  }
  return out;
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t found = text.find(pattern, position);
    if (found == text.npos) break;
    out.append(text.substr(position, found - position)).append(content);
    position = found + pattern.size();
  }
  return out.append(text.substr(std::min(position, text.size())));
}

std::string normalize(std::span<const NormalizerStep> steps, std::string_view text) {
  std::string current(text);
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case NormalizerStep::Kind::kReplace:
        if (!step.pattern.empty()) current = replace_all(current, step.pattern, step.content);
        break;
      case NormalizerStep::Kind::kPrepend:
        if (!current.empty()) current.insert(0, step.content);
        break;
      case NormalizerStep::Kind::kPrefixSpace:
        if (!current.starts_with(' ')) current.insert(0, 1, ' ');
        break;
      default: current = to_form(step.kind, current); break;
    }
  }
  return current;
}

}  // namespace hone::formats
