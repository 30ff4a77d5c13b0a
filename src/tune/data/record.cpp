// Records out of JSON objects, by the shapes that people already have.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/nearest.h"

namespace hone::tune {
namespace {

using Json = nlohmann::json;

// A field under the names that it goes by; the first is the usual one.
using Names = std::array<std::string_view, 3>;
constexpr Names kMessages = {"messages"};
constexpr Names kConversations = {"conversations", "conversation"};
constexpr Names kPrompt = {"prompt"};
constexpr Names kCompletion = {"completion", "response"};
constexpr Names kInstruction = {"instruction"};
constexpr Names kInput = {"input", "context"};
constexpr Names kOutput = {"output", "response"};
constexpr Names kQuestion = {"question"};
constexpr Names kAnswer = {"answer"};
constexpr Names kTextField = {"text"};
constexpr Names kRole = {"role", "from"};
constexpr Names kContent = {"content", "value"};

// In the order in which they are looked for: a record that also has a "text" made out of its
// messages is taken as messages.
struct Form {
  Shape shape;
  std::string_view name;
  std::array<const Names*, 2> needed;
  std::string_view fields;  // for errors
};
constexpr std::array<Form, kShapes> kForms = {
    Form{Shape::kMessages, "messages", {&kMessages, nullptr}, "messages"},
    Form{Shape::kShareGpt, "ShareGPT", {&kConversations, nullptr}, "conversations"},
    Form{Shape::kPromptCompletion,
         "prompt and completion",
         {&kPrompt, &kCompletion},
         "prompt and completion"},
    Form{Shape::kAlpaca,
         "alpaca",
         {&kInstruction, &kOutput},
         "instruction and output (and perhaps input)"},
    Form{Shape::kQuestionAnswer,
         "question and answer",
         {&kQuestion, &kAnswer},
         "question and answer"},
    Form{Shape::kText, "text", {&kTextField, nullptr}, "text"},
};

Error wrong(std::string what, std::string found, std::string expected, std::string advice = "") {
  return {ErrorCode::kCorrupt, std::move(what),     "",
          std::move(found),    std::move(expected), std::move(advice)};
}

// "a number", "a list"
std::string kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return "true or false";
    case Json::value_t::string:
      return fmt::format("the text \"{}\"", excerpt(value.get_ref<const std::string&>()));
    case Json::value_t::array: return fmt::format("a list of {}", value.size());
    case Json::value_t::object: return "an object";
    default: return fmt::format("the number {}", value.dump());
  }
}

const Json* find(const Json& object, const Names& names) {
  for (const std::string_view name : names) {
    if (name.empty()) break;
    const auto at = object.find(name);
    if (at != object.end()) return &*at;
  }
  return nullptr;
}

Result<std::string> text_of(const Json& value, std::string_view field) {
  if (!value.is_string()) {
    return wrong(fmt::format("\"{}\" is no text", field), kind_of(value), "text in quotes");
  }
  const auto& text = value.get_ref<const std::string&>();
  if (const std::size_t zero = text.find('\0'); zero != text.npos) {
    return wrong(fmt::format("\"{}\" holds a NUL character", field),
                 fmt::format("at byte {} of {}", zero, text.size()), "text", "take it out");
  }
  return text;
}

// A field that may be missing or null; then the text is empty.
Result<std::string> optional_text(const Json& object, const Names& names) {
  const Json* value = find(object, names);
  if (value == nullptr || value->is_null()) return std::string();
  return text_of(*value, names[0]);
}

// Content: text, or a list of parts of type text.
Result<std::string> content_of(const Json& message) {
  const Json* content = find(message, kContent);
  if (message.contains("tool_calls") && !message["tool_calls"].is_null()) {
    return Error{ErrorCode::kUnsupported, "a message calls tools",      "",
                 "\"tool_calls\"",        "messages with content only", ""};
  }
  if (content == nullptr) {
    return wrong("a message has no content", kind_of(message), "\"content\" (or \"value\")");
  }
  if (!content->is_array()) return text_of(*content, "content");
  std::string text;
  for (const Json& part : *content) {
    if (!part.is_object() || !part.contains("text")) {
      const std::string type =
          part.is_object() ? part.value("type", Json("?")).dump() : kind_of(part);
      return Error{ErrorCode::kUnsupported,
                   "a message has a part that is no text",
                   "",
                   fmt::format("type {}", excerpt(type)),
                   "parts of type \"text\"",
                   ""};
    }
    auto piece = text_of(part["text"], "text");
    if (!piece) return piece.error();
    text += *piece;
  }
  return text;
}

// ShareGPT's names of speakers.
std::optional<std::string> role_of_speaker(std::string_view from) {
  for (const std::string_view name : {"human", "user"}) {
    if (from == name) return "user";
  }
  for (const std::string_view name : {"gpt", "assistant", "model", "chatgpt", "bard", "bing"}) {
    if (from == name) return "assistant";
  }
  for (const std::string_view name : {"tool", "function", "observation"}) {
    if (from == name) return "tool";
  }
  if (from == "system") return "system";
  return std::nullopt;
}

Result<Turn> turn_of(const Json& message) {
  if (!message.is_object()) {
    return wrong("a message is no object", kind_of(message), R"({"role": …, "content": …})");
  }
  const Json* role = find(message, kRole);
  if (role == nullptr || !role->is_string()) {
    return wrong("a message has no role", role == nullptr ? "no \"role\"" : kind_of(*role),
                 "\"role\" (or \"from\"): who says it");
  }
  Turn turn;
  turn.message.role = role->get<std::string>();
  if (!message.contains("role")) {
    auto known = role_of_speaker(turn.message.role);
    if (!known) {
      return wrong("a message is from an unknown speaker",
                   fmt::format("\"{}\"", excerpt(turn.message.role)), "human, gpt, system or tool");
    }
    turn.message.role = *std::move(known);
  }
  auto content = content_of(message);
  if (!content) return content.error();
  turn.message.content = *std::move(content);
  turn.learn = turn.message.role == "assistant";
  // OpenAI's way to leave an answer out of training.
  if (const auto weight = message.find("weight"); weight != message.end()) {
    if (!weight->is_number()) return wrong("a weight is no number", kind_of(*weight), "0 or 1");
    const auto number = weight->get<double>();
    if (number != 0 && number != 1) {
      return wrong("a message has a weight that is neither 0 nor 1", kind_of(*weight), "0 or 1");
    }
    turn.learn = turn.learn && number == 1;
  }
  return turn;
}

Status add_turns(const Json& list, std::string_view field, bool learn, std::vector<Turn>& turns) {
  if (!list.is_array()) {
    return wrong(fmt::format("\"{}\" is no list", field), kind_of(list), "a list of messages");
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto turn = turn_of(list[i]);
    if (!turn) return turn.error().in(fmt::format("message {}", i + 1));
    turn->learn = turn->learn && learn;
    turns.push_back(*std::move(turn));
  }
  return {};
}

void add_turn(std::string role, std::string content, std::vector<Turn>& turns) {
  const bool learn = role == "assistant";
  turns.push_back({{std::move(role), std::move(content)}, learn});
}

Status read_conversation(const Json& value, const Names& names, Record& record) {
  const Json* list = find(value, names);
  if (list->is_string()) {  // a column of a table that holds JSON
    const Json inner = Json::parse(list->get_ref<const std::string&>(), nullptr, false);
    if (inner.is_array()) return add_turns(inner, names[0], true, record.turns);
  }
  if (const auto system = value.find("system"); system != value.end() && !system->is_null()) {
    auto text = text_of(*system, "system");
    if (!text) return text.error();
    if (!text->empty()) add_turn("system", *std::move(text), record.turns);
  }
  return add_turns(*list, names[0], true, record.turns);
}

Status read_prompt_completion(const Json& value, Record& record) {
  const Json& prompt = *find(value, kPrompt);
  const Json& completion = *find(value, kCompletion);
  if (prompt.is_array() || completion.is_array()) {
    HONE_RETURN_IF_ERROR(add_turns(prompt, "prompt", false, record.turns));
    return add_turns(completion, "completion", true, record.turns);
  }
  auto asked = text_of(prompt, "prompt");
  if (!asked) return asked.error();
  auto answer = text_of(completion, "completion");
  if (!answer) return answer.error();
  record.completes = true;
  record.prompt = *asked;
  record.text = *answer;
  add_turn("user", *std::move(asked), record.turns);
  add_turn("assistant", *std::move(answer), record.turns);
  return {};
}

Status read_history(const Json& value, Record& record) {
  const auto history = value.find("history");
  if (history == value.end() || history->is_null()) return {};
  const auto is_pair = [](const Json& item) {
    return item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string();
  };
  if (!history->is_array() || !std::all_of(history->begin(), history->end(), is_pair)) {
    return wrong("\"history\" is no list of pairs", kind_of(*history), "[[question, answer], …]");
  }
  for (const Json& pair : *history) {
    add_turn("user", pair[0].get<std::string>(), record.turns);
    add_turn("assistant", pair[1].get<std::string>(), record.turns);
  }
  record.completes = record.completes && history->empty();
  return {};
}

Status read_alpaca(const Json& value, Record& record) {
  auto instruction = text_of(*find(value, kInstruction), "instruction");
  if (!instruction) return instruction.error();
  auto input = optional_text(value, kInput);
  if (!input) return input.error();
  auto output = text_of(*find(value, kOutput), "output");
  if (!output) return output.error();
  auto system = optional_text(value, {"system"});
  if (!system) return system.error();
  record.completes = system->empty();
  if (!system->empty()) add_turn("system", *std::move(system), record.turns);
  HONE_RETURN_IF_ERROR(read_history(value, record));
  const std::string between = input->empty() || instruction->empty() ? "" : "\n\n";
  add_turn("user", *instruction + between + *input, record.turns);
  add_turn("assistant", *output, record.turns);
  // The headings of Taori et al., "Stanford Alpaca" (2023).
  record.prompt = fmt::format("### Instruction:\n{}\n\n", *instruction);
  if (!input->empty()) record.prompt += fmt::format("### Input:\n{}\n\n", *input);
  record.prompt += "### Response:\n";
  record.text = *std::move(output);
  return {};
}

Status read_question(const Json& value, Record& record) {
  auto question = text_of(*find(value, kQuestion), "question");
  if (!question) return question.error();
  auto answer = text_of(*find(value, kAnswer), "answer");
  if (!answer) return answer.error();
  record.completes = true;
  record.prompt = fmt::format("Question: {}\nAnswer:", *question);
  record.text = " " + *answer;
  add_turn("user", *std::move(question), record.turns);
  add_turn("assistant", *std::move(answer), record.turns);
  return {};
}

Status read(const Json& value, Record& record) {
  switch (record.shape) {
    case Shape::kMessages: return read_conversation(value, kMessages, record);
    case Shape::kShareGpt: return read_conversation(value, kConversations, record);
    case Shape::kPromptCompletion: return read_prompt_completion(value, record);
    case Shape::kAlpaca: return read_alpaca(value, record);
    case Shape::kQuestionAnswer: return read_question(value, record);
    case Shape::kText: break;
  }
  auto text = text_of(*find(value, kTextField), "text");
  if (!text) return text.error();
  record.text = *std::move(text);
  return {};
}

template <typename Has>
const Form* form_of(Has has) {
  const auto has_any = [&has](const Names* names) {
    return names == nullptr ||
           std::any_of(names->begin(), names->end(),
                       [&](std::string_view name) { return !name.empty() && has(name); });
  };
  const auto* form = std::find_if(kForms.begin(), kForms.end(), [&](const Form& candidate) {
    return std::all_of(candidate.needed.begin(), candidate.needed.end(), has_any);
  });
  return form == kForms.end() ? nullptr : form;
}

// "did you mean 'completion'?", or nothing.
std::string advice_for(std::span<const std::string> names) {
  std::vector<std::string_view> known;
  for (const Form& form : kForms) {
    for (const Names* needed : form.needed) {
      for (std::size_t i = 0; needed != nullptr && i < needed->size(); ++i) {
        if (!(*needed)[i].empty()) known.push_back((*needed)[i]);
      }
    }
  }
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string meant = nearest(name, known);
    if (!meant.empty()) return fmt::format("rename \"{}\" to \"{}\"", excerpt(name), meant);
  }
  return "rename the fields, or write the records anew in one of these shapes";
}

}  // namespace

std::string_view shape_name(Shape shape) {
  const auto* form = std::find_if(kForms.begin(), kForms.end(), [shape](const Form& candidate) {
    return candidate.shape == shape;
  });
  return form == kForms.end() ? "?" : form->name;
}

std::string known_shapes() {
  std::vector<std::string_view> fields;
  for (const Form& form : kForms) fields.push_back(form.fields);
  return fmt::format("{}", fmt::join(fields, "; or "));
}

bool is_record_header(std::span<const std::string> names) {
  return form_of([names](std::string_view name) {
           return std::find(names.begin(), names.end(), name) != names.end();
         }) != nullptr;
}

Result<Record> record_of_json(const Json& value) {
  if (!value.is_object()) {
    return wrong("the record is no object", kind_of(value), "fields: " + known_shapes());
  }
  const Form* form = form_of([&value](std::string_view name) { return value.contains(name); });
  if (form == nullptr) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : value.items()) names.push_back(name);
    std::string listed;
    for (const std::string& name : names) {
      listed += fmt::format("{}\"{}\"", listed.empty() ? "" : ", ", excerpt(name, 30));
    }
    return wrong("the record has none of the shapes that hone knows",
                 names.empty() ? "no fields" : "fields " + excerpt(listed, 200),
                 "fields: " + known_shapes(), advice_for(names));
  }
  Record record;
  record.shape = form->shape;
  HONE_RETURN_IF_ERROR(read(value, record));
  return record;
}

std::string excerpt(std::string_view text, std::size_t bytes) {
  const bool cut = text.size() > bytes;
  std::size_t end = cut ? bytes : text.size();
  while (cut && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  std::string out(text.substr(0, end));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return cut ? out + "…" : out;
}

}  // namespace hone::tune
