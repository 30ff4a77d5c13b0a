// The shapes of records, and what is wrong with others.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/record.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace hone::tune {
namespace {

Result<Record> record_of(std::string_view json) {
  return record_of_json(nlohmann::json::parse(json));
}

// "user: a | assistant*: b": who says what, a star where it is learned.
std::string told(const Result<Record>& record) {
  if (!record) return record.error().text();
  std::string text;
  for (const Turn& turn : record->turns) {
    text += (text.empty() ? "" : " | ") + turn.message.role + (turn.learn ? "*" : "") + ": " +
            turn.message.content;
  }
  return text;
}

TEST(Record, Messages) {
  EXPECT_EQ(told(record_of(R"({"messages": [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})")),
            "system: Be brief. | user: a | assistant*: b");
  // A "text" made out of the messages does not count.
  EXPECT_EQ(record_of(R"({"text": "x", "messages": []})")->shape, Shape::kMessages);
}

TEST(Record, ContentInPartsAndWeights) {
  EXPECT_EQ(told(record_of(R"({"messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]},
                {"role": "assistant", "content": "c", "weight": 0},
                {"role": "assistant", "content": "d", "weight": 1}]})")),
            "user: ab | assistant: c | assistant*: d");
}

TEST(Record, ShareGpt) {
  const auto record = record_of(R"({"conversations": [{"from": "system", "value": "s"},
      {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "id": 7})");
  EXPECT_EQ(told(record), "system: s | user: a | assistant*: b");
  EXPECT_EQ(record->shape, Shape::kShareGpt);
  EXPECT_FALSE(record->completes);
  EXPECT_EQ(
      told(record_of(R"({"system": "s", "conversations": [{"from": "user", "value": "a"}]})")),
      "system: s | user: a");
}

TEST(Record, PromptAndCompletion) {
  const auto record = record_of(R"({"prompt": "a", "completion": " b"})");
  EXPECT_EQ(told(record), "user: a | assistant*:  b");
  EXPECT_TRUE(record->completes);
  EXPECT_EQ(record->prompt, "a");
  EXPECT_EQ(record->text, " b");
  EXPECT_EQ(told(record_of(R"({"prompt": "a", "response": "b"})")), "user: a | assistant*: b");
  // Answers inside of the prompt are context.
  EXPECT_EQ(told(record_of(R"({"prompt": [{"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
                "completion": [{"role": "assistant", "content": "d"}]})")),
            "user: a | assistant: b | user: c | assistant*: d");
}

TEST(Record, Alpaca) {
  const auto record = record_of(R"({"instruction": "Add.", "input": "1 2", "output": "3"})");
  EXPECT_EQ(told(record), "user: Add.\n\n1 2 | assistant*: 3");
  EXPECT_EQ(record->prompt, "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n");
  EXPECT_EQ(told(record_of(R"({"instruction": "a", "input": "", "output": "b"})")),
            "user: a | assistant*: b");
  EXPECT_EQ(told(record_of(R"({"instruction": "a", "input": null, "output": "b", "system": "s",
                "history": [["c", "d"]]})")),
            "system: s | user: c | assistant*: d | user: a | assistant*: b");
  EXPECT_EQ(told(record_of(R"({"instruction": "a", "context": "x", "response": "b"})")),
            "user: a\n\nx | assistant*: b");
}

TEST(Record, QuestionAndText) {
  EXPECT_EQ(told(record_of(R"({"question": "a?", "answer": "b"})")), "user: a? | assistant*: b");
  const auto text = record_of(R"({"text": "once"})");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->shape, Shape::kText);
  EXPECT_EQ(text->text, "once");
}

// Each error names what was found.
TEST(Record, ErrorsSayWhatIsWrong) {
  const struct {
    const char* json;
    const char* named;
  } kCases[] = {
      {R"([1])", "a list of 1"},
      {R"({})", "no fields"},
      {R"({"prompt": "a", "completon": "b"})", "rename \"completon\" to \"completion\""},
      {R"({"prompt": 3, "completion": "b"})", "the number 3"},
      {R"({"text": null})", "null"},
      {R"({"text": "a\u0000b"})", "NUL"},
      {R"({"messages": "hello"})", "the text \"hello\""},
      {R"({"messages": ["hello"]})", "message 1"},
      {R"({"messages": [{"role": "user", "content": "a"}, {"content": "b"}]})", "message 2"},
      {R"({"messages": [{"role": "user"}]})", "no content"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "image_url"},
      {R"({"messages": [{"role": "assistant", "content": null, "tool_calls": []}]})", "tools"},
      {R"({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]})", "0.5"},
      {R"({"conversations": [{"from": "narrator", "value": "a"}]})", "narrator"},
      {R"({"instruction": "a", "output": "b", "history": [["c"]]})", "history"},
  };
  for (const auto& example : kCases) {
    const auto record = record_of(example.json);
    ASSERT_FALSE(record.ok()) << example.json;
    EXPECT_NE(record.error().text().find(example.named), std::string::npos)
        << example.json << " gave: " << record.error().text();
    EXPECT_NE(record.error().what, "");
  }
}

TEST(Record, ExcerptsKeepCharactersWhole) {
  EXPECT_EQ(excerpt("a\nb", 10), "a b");
  EXPECT_EQ(excerpt("aé", 2), "a…");  // é has two bytes
  EXPECT_EQ(excerpt("abc", 2), "ab…");
}

}  // namespace
}  // namespace hone::tune
