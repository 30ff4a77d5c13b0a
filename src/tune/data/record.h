// One example as people write it down: a conversation, a prompt with its completion, or a text.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/status.h"
#include "formats/chat_template.h"

namespace hone::tune {

enum class Shape : std::uint8_t {
  kMessages,          // {"messages": [{"role", "content"}, …]}
  kShareGpt,          // {"conversations": [{"from", "value"}, …]}
  kPromptCompletion,  // {"prompt", "completion"}, texts or lists of messages
  kAlpaca,            // {"instruction", "input", "output"}
  kQuestionAnswer,    // {"question", "answer"}
  kText,              // {"text"}
};
inline constexpr std::size_t kShapes = 6;
std::string_view shape_name(Shape shape);
// For errors: every shape with its fields.
std::string known_shapes();
// Whether fields of these names make a record.
bool is_record_header(std::span<const std::string> names);

struct Turn {
  formats::Message message;
  bool learn = false;  // an answer that is trained on
};

struct Record {
  Shape shape = Shape::kText;
  std::size_t number = 0;   // in its file, from 1
  std::size_t line = 0;     // where it begins, from 1; 0 where that is not known
  std::vector<Turn> turns;  // every shape but kText
  // kText: the text itself. Otherwise, where the shape has words for models without a template,
  // what comes before the answer and the answer.
  bool completes = false;
  std::string prompt;
  std::string text;
};

// A record out of a JSON object; `line` and `number` are left to the caller. kCorrupt or
// kUnsupported with what was found and expected.
Result<Record> record_of_json(const nlohmann::json& value);

// The beginning of a text, for errors: one line, whole characters.
std::string excerpt(std::string_view text, std::size_t bytes = 60);

}  // namespace hone::tune
