// Questions with known answers: the shapes that are read, and what is said of others.
// SPDX-License-Identifier: Apache-2.0
#include "tune/eval_examples.h"

#include <gtest/gtest.h>

namespace hone::tune {
namespace {

TEST(EvalExamples, ShapesThatAreRead) {
  const auto read = read_eval_examples(
      "\xEF\xBB\xBF{\"prompt\": \"A?\", \"choices\": [\"x\", \"y\"], \"answer\": 1}\r\n"
      "\n"
      "{\"question\": \"B?\", \"choices\": [\"x\", \"y\", \"B\"], \"answer\": \"y\", \"id\": 7}\n"
      "{\"question\": \"C?\", \"choices\": [\"x\", \"y\", \"z\"], \"answer\": \"C\"}\n"
      "{\"question\": \"D?\", \"choices\": [\"x\", \"y\", \"B\"], \"answer\": \"B\"}\n"
      "{\"prompt\": \"E?\", \"answer\": \"forty-two\"}\n"
      "{\"prompt\": \"F?\", \"answer\": [\"Ümlaut\", 42, 0.5]}",
      "x.jsonl");
  ASSERT_TRUE(read) << read.error().text();
  ASSERT_EQ(read->size(), 6u);
  EXPECT_EQ((*read)[0].prompt, "A?");
  EXPECT_EQ((*read)[0].answer, 1u);
  EXPECT_EQ((*read)[1].answer, 1u);
  EXPECT_EQ((*read)[1].line, 3);
  EXPECT_EQ((*read)[2].answer, 2u);  // a letter
  EXPECT_EQ((*read)[3].answer, 2u);  // a choice comes before a letter
  EXPECT_TRUE((*read)[4].choices.empty());
  EXPECT_EQ((*read)[4].answers, std::vector<std::string>{"forty-two"});
  EXPECT_EQ((*read)[5].answers, (std::vector<std::string>{"Ümlaut", "42", "0.5"}));
}

TEST(EvalExamples, OthersAreNamedWithTheirLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"not json", "not JSON"},
      {"{\"prompt\": \"a\", \"answer\": \"b\"", "not JSON"},
      {"[1]", "no JSON object"},
      {"{\"text\": \"a\"}", "no prompt"},
      {"{\"prompt\": \"a\"}", "no answer"},
      {"{\"prompt\": 1, \"answer\": \"b\"}", "no text"},
      {"{\"prompt\": \"\", \"answer\": \"b\"}", "empty"},
      {"{\"prompt\": \"a\", \"answer\": \"\"}", "cannot be compared"},
      {"{\"prompt\": \"a\", \"answer\": null}", "cannot be compared"},
      {"{\"prompt\": \"a\", \"answer\": []}", "no answer"},
      {"{\"prompt\": \"a\", \"answer\": [true]}", "cannot be compared"},
      {"{\"prompt\": \"a\", \"choices\": \"xy\", \"answer\": 0}", "no choices"},
      {"{\"prompt\": \"a\", \"choices\": [\"x\"], \"answer\": 0}", "no choices"},
      {"{\"prompt\": \"a\", \"choices\": [\"x\", 1], \"answer\": 0}", "no choices"},
      {"{\"prompt\": \"a\", \"choices\": [\"x\", \"\"], \"answer\": 0}", "empty"},
      {"{\"prompt\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": 2}", "none of the choices"},
      {"{\"prompt\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": -1}", "none of the choices"},
      {"{\"prompt\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": 0.5}", "none of the choices"},
      {"{\"prompt\": \"a\", \"choices\": [\"x\", \"y\"], \"answer\": \"C\"}",
       "none of the choices"},
      {"{\"prompt\": \"a\xFF\", \"answer\": \"b\"}", "not JSON"},
  };
  for (const auto& [line, naming] : cases) {
    const auto read = read_eval_examples(
        std::string("{\"prompt\": \"a\", \"answer\": \"b\"}\n\n") + line + "\n", "x.jsonl");
    ASSERT_FALSE(read) << line;
    EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument) << line;
    EXPECT_NE(read.error().what.find(naming), std::string::npos) << read.error().text();
    EXPECT_EQ(read.error().where, "x.jsonl, line 3") << line;
    EXPECT_FALSE(read.error().expected.empty()) << line;
  }
  for (const char* empty : {"", "\n \r\n"}) {
    const auto read = read_eval_examples(empty, "x.jsonl");
    ASSERT_FALSE(read);
    EXPECT_NE(read.error().what.find("no examples"), std::string::npos);
  }
}

}  // namespace
}  // namespace hone::tune
