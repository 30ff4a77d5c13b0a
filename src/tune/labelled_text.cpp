// SPDX-License-Identifier: Apache-2.0
#include "tune/labelled_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/file.h"

namespace hone::tune {
namespace {

constexpr std::int32_t kLargestLabel = 999;

// -1 where the text is no label.
std::int32_t label_of(std::string_view text) {
  std::int32_t label = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), label);
  const bool whole = code == std::errc() && end == text.data() + text.size();
  return whole && label >= 0 && label <= kLargestLabel ? label : -1;
}

// FNV-1a, 64 bits.
std::uint64_t hash_of(std::string_view word, std::uint64_t from = 0xcbf29ce484222325) {
  for (const char c : word) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    from = (from ^ static_cast<unsigned char>(lower)) * 0x100000001b3;
  }
  return from;
}

}  // namespace

Result<LabelledText> read_labelled_text(const std::string& path) {
  const auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  LabelledText out;
  std::string_view rest = *bytes;
  bool label_behind = false;
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::size_t tab = line.rfind('\t');
    if (number == 1 && tab != std::string_view::npos && label_of(line.substr(tab + 1)) < 0) {
      label_behind = true;
      continue;
    }
    const std::size_t cut = std::min(label_behind ? tab : line.find(' '), line.size());
    const std::string_view before = line.substr(0, cut);
    const std::string_view after = line.substr(std::min(cut + 1, line.size()));
    const std::int32_t label = label_of(label_behind ? after : before);
    if (label < 0) {
      return Error{ErrorCode::kCorrupt,
                   "a line has no label",
                   fmt::format("{}, line {}", path, number),
                   std::string(line.substr(0, 60)),
                   "'LABEL text', or 'text<TAB>LABEL' below a line that names the columns",
                   ""};
    }
    out.texts.emplace_back(label_behind ? before : after);
    out.labels.push_back(label);
  }
  return out;
}

LabelledText take_every(LabelledText& text, std::int64_t every) {
  LabelledText kept, taken;
  for (std::size_t i = 0; i < text.texts.size(); ++i) {
    LabelledText& to = static_cast<std::int64_t>(i) % every == 0 ? taken : kept;
    to.texts.push_back(std::move(text.texts[i]));
    to.labels.push_back(text.labels[i]);
  }
  text = std::move(kept);
  return taken;
}

void hash_words(std::string_view text, std::span<float> features) {
  std::ranges::fill(features, 0.0F);
  const auto add = [&](std::uint64_t hash) {
    // The low bits choose the feature, the highest its sign.
    features[hash % features.size()] += hash >> 63 == 0 ? 1.0F : -1.0F;
  };
  std::string_view last;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word.empty()) continue;
    add(hash_of(word));
    if (!last.empty()) add(hash_of(word, hash_of(" ", hash_of(last))));
    last = word;
  }
  double squares = 0;
  for (const float value : features) squares += double{value} * double{value};
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  for (float& value : features) value = static_cast<float>(value * scale);
}

}  // namespace hone::tune
