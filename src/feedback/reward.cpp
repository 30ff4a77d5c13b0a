// SPDX-License-Identifier: Apache-2.0
#include "feedback/reward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace hone::feedback {
namespace {

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

// Words in lower case; letters and digits alone.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || static_cast<unsigned char>(c) > 127) {
      words.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::vector<std::string_view> pieces_of(std::string_view text, auto separates) {
  std::vector<std::string_view> pieces;
  std::size_t at = 0;
  while (at < text.size()) {
    while (at < text.size() && separates(text[at])) ++at;
    std::size_t end = at;
    while (end < text.size() && !separates(text[end])) ++end;
    if (end > at) pieces.push_back(text.substr(at, end - at));
    at = end;
  }
  return pieces;
}

}  // namespace

std::string judged_lines(const std::vector<Judged>& answers) {
  std::string lines;
  for (const Judged& each : answers) {
    const nlohmann::ordered_json line{
        {"prompt", each.prompt}, {"answer", each.answer}, {"references", each.references}};
    // Answers may be cut inside of a character.
    lines += line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  return lines;
}

Result<double> mean_reward(std::string_view text, std::size_t answers) {
  const auto pieces = pieces_of(text, is_space);
  const auto wrong = [&](std::string what, std::string found) {
    return Error{ErrorCode::kCorrupt,
                 std::move(what),
                 "the reward program's answer",
                 std::move(found),
                 fmt::format("{} numbers, one a line, or one for all answers", answers),
                 ""};
  };
  if (pieces.size() != 1 && pieces.size() != answers) {
    return wrong(pieces.empty() ? "there is no reward" : "these are not the rewards of the answers",
                 fmt::format("{} values", pieces.size()));
  }
  double sum = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    double value = 0;
    const char* end = pieces[i].data() + pieces[i].size();
    const auto read = std::from_chars(pieces[i].data(), end, value);
    if (read.ec != std::errc() || read.ptr != end || !std::isfinite(value)) {
      return wrong("this reward is no finite number",
                   fmt::format("value {}: '{}'", i + 1, pieces[i].substr(0, 40)));
    }
    sum += value;
  }
  return sum / static_cast<double>(pieces.size());
}

Result<std::vector<std::int64_t>> ranking_of(std::string_view text, std::int64_t candidates) {
  const auto wrong = [&](std::string what, std::string_view found) {
    return Error{
        ErrorCode::kCorrupt,
        std::move(what),
        "the ranking",
        std::string(found.substr(0, 60)),
        fmt::format("candidates 0 to {}, best first, each once at most: 2 0 1", candidates - 1),
        "leave the worse ones out rather than tying them"};
  };
  std::vector<std::int64_t> order;
  for (const std::string_view piece :
       pieces_of(text, [](char c) { return is_space(c) || c == ',' || c == '>'; })) {
    std::int64_t value = -1;
    const char* end = piece.data() + piece.size();
    const auto read = std::from_chars(piece.data(), end, value);
    if (read.ec != std::errc() || read.ptr != end) return wrong("this is no candidate", piece);
    if (value < 0 || value >= candidates) return wrong("there is no such candidate", piece);
    if (std::ranges::count(order, value) > 0) return wrong("a candidate is named twice", piece);
    order.push_back(value);
  }
  if (order.empty()) return wrong("nothing is ranked", text);
  return order;
}

double exact_reward(const Judged& judged) {
  const auto answer = words_of(judged.answer);
  return std::ranges::any_of(judged.references,
                             [&](const std::string& each) { return words_of(each) == answer; })
             ? 1.0
             : 0.0;
}

double f1_reward(const Judged& judged) {
  const auto answer = words_of(judged.answer);
  double best = 0;
  for (const std::string& reference : judged.references) {
    const auto expected = words_of(reference);
    std::map<std::string, std::int64_t> left;
    for (const std::string& word : expected) ++left[word];
    double common = 0;
    for (const std::string& word : answer) {
      if (left[word]-- > 0) common += 1;
    }
    if (common == 0) continue;
    const double precision = common / static_cast<double>(answer.size());
    const double recall = common / static_cast<double>(expected.size());
    best = std::max(best, 2 * precision * recall / (precision + recall));
  }
  return best;
}

}  // namespace hone::feedback
