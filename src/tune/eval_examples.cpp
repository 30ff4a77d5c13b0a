// Questions with known answers, out of JSON Lines.
// SPDX-License-Identifier: Apache-2.0
#include "tune/eval_examples.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace hone::tune {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kShapes =
    R"({"prompt": …, "choices": [ … ], "answer": … } or {"prompt": …, "answer": … })";

Error bad_line(std::string what, std::string found, std::string expected) {
  return Error{
      ErrorCode::kInvalidArgument, std::move(what), "", std::move(found), std::move(expected), ""};
}

std::string shortly(const Json& value) {
  constexpr std::size_t kMost = 60;
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() <= kMost) return text;
  std::size_t size = kMost;
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
  return text.substr(0, size) + "…";
}

std::string keys_of(const Json& object) {
  std::string keys;
  for (const auto& item : object.items()) keys += (keys.empty() ? "" : ", ") + item.key();
  return keys.empty() ? "no keys" : "the keys " + keys;
}

Result<Json> parse(std::string_view line) {
  // Inside only: nothing is thrown past this function.
  try {
    return Json::parse(line);
  } catch (const Json::parse_error& error) {
    return bad_line("this line is not JSON", fmt::format("an error at column {}", error.byte),
                    std::string(kShapes));
  }
}

// Text, or a number as it is written.
Result<std::string> answer_text(const Json& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (!text.empty()) return text;
  }
  if (value.is_number()) return value.dump();
  return bad_line("the answer cannot be compared with anything", shortly(value),
                  "a text that is not empty, or a number");
}

// Index, one of the texts, or a letter.
Result<std::size_t> answer_index(const Json& value, const std::vector<std::string>& choices) {
  const std::string expected = fmt::format(
      "a whole number from 0 to {}, one of the choices, or a letter from A to {}",
      choices.size() - 1, static_cast<char>('A' + std::min<std::size_t>(choices.size(), 26) - 1));
  if (value.is_number_unsigned() && value.get<std::uint64_t>() < choices.size()) {
    return value.get<std::size_t>();
  }
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto found = std::ranges::find(choices, text);
    if (found != choices.end()) return static_cast<std::size_t>(found - choices.begin());
    if (text.size() == 1 && text[0] >= 'A' && text[0] <= 'Z') {
      const auto index = static_cast<std::size_t>(text[0] - 'A');
      if (index < choices.size()) return index;
    }
  }
  return bad_line("the answer is none of the choices", shortly(value), expected);
}

Status read_choices(const Json& value, std::vector<std::string>& choices) {
  const bool texts =
      value.is_array() && std::ranges::all_of(value, [](const Json& v) { return v.is_string(); });
  if (!texts || value.size() < 2) {
    return bad_line("these are no choices", shortly(value), "a list of two texts or more");
  }
  for (const Json& choice : value) {
    if (choice.get_ref<const std::string&>().empty()) {
      return bad_line("a choice is empty", shortly(value), "texts that a model can be asked for");
    }
    choices.push_back(choice);
  }
  return {};
}

Result<EvalExample> read_example(std::string_view line) {
  const auto json = parse(line);
  if (!json) return json.error();
  if (!json->is_object()) {
    return bad_line("this line is no JSON object", shortly(*json), std::string(kShapes));
  }
  const auto prompt = json->contains("prompt") ? json->find("prompt") : json->find("question");
  const auto answer = json->find("answer");
  if (prompt == json->end() || answer == json->end()) {
    return bad_line(prompt == json->end() ? "there is no prompt" : "there is no answer",
                    keys_of(*json), std::string(kShapes));
  }
  if (!prompt->is_string()) {
    return bad_line("the prompt is no text", shortly(*prompt), std::string(kShapes));
  }
  EvalExample example;
  example.prompt = *prompt;
  if (const auto choices = json->find("choices"); choices != json->end()) {
    HONE_RETURN_IF_ERROR(read_choices(*choices, example.choices));
    const auto index = answer_index(*answer, example.choices);
    if (!index) return index.error();
    example.answer = *index;
    return example;
  }
  if (example.prompt.empty()) return bad_line("the prompt is empty", "", "some text");
  if (answer->is_array() && answer->empty()) {
    return bad_line("there is no answer", "an empty list", "at least one accepted answer");
  }
  for (const Json& one : answer->is_array() ? *answer : Json::array({*answer})) {
    const auto text = answer_text(one);
    if (!text) return text.error();
    example.answers.push_back(*text);
  }
  return example;
}

}  // namespace

Result<std::vector<EvalExample>> read_eval_examples(std::string_view text,
                                                    const std::string& name) {
  std::vector<EvalExample> examples;
  std::int64_t number = 0;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto example = read_example(line);
    if (!example) return example.error().in(fmt::format("{}, line {}", name, number));
    example->line = number;
    examples.push_back(*std::move(example));
  }
  if (examples.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "there are no examples",
                 name,
                 "an empty file",
                 std::string(kShapes) + ", one a line",
                 ""};
  }
  return examples;
}

}  // namespace hone::tune
