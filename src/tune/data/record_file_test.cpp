// Forms of data files told apart, and places in errors.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/record_file.h"

#include <gtest/gtest.h>

namespace hone::tune {
namespace {

using namespace std::string_literals;

RecordFile read(std::string_view text, const std::string& name = "data") {
  auto file = read_records(text, name);
  EXPECT_TRUE(file.ok()) << file.error().text();
  return file ? *std::move(file) : RecordFile();
}

Error fails(std::string_view text, const std::string& name = "data") {
  const auto file = read_records(text, name);
  EXPECT_FALSE(file.ok()) << "accepted: " << text;
  return file ? Error() : file.error();
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

TEST(RecordFile, TellsFormsApart) {
  EXPECT_EQ(read("{\"text\": \"a\"}\n{\"text\": \"b\"}\n").form, FileForm::kJsonLines);
  EXPECT_EQ(read("[{\"text\": \"a\"},\n {\"text\": \"b\"}]").form, FileForm::kJson);
  EXPECT_EQ(read("{\n  \"text\": \"a\"\n}").form, FileForm::kJson);
  EXPECT_EQ(read("prompt,completion\na,b\n").form, FileForm::kCsv);
  EXPECT_EQ(read("Instruction;Output\na;b\n").form, FileForm::kCsv);
  EXPECT_EQ(read("question\tanswer\na\tb\n").form, FileForm::kCsv);
  EXPECT_EQ(read("Once upon a time, there was.\n").form, FileForm::kText);
  EXPECT_EQ(read("[1] A footnote.\n").form, FileForm::kText);
  EXPECT_EQ(read("{\\bf TeX}\n").form, FileForm::kText);
  // The content decides, not the name.
  EXPECT_EQ(read("[{\"text\": \"a\"}]", "a.jsonl").form, FileForm::kJson);
  EXPECT_EQ(read("{\"text\": \"a\"}\n", "a.json").form, FileForm::kJsonLines);
}

TEST(RecordFile, ReadsEachForm) {
  for (const std::string& text : {
           "{\"prompt\": \"a\", \"completion\": \"b\"}\n\n"
           "{\"prompt\": \"c\", \"completion\": \"d\"}"s,
           "\xEF\xBB\xBF[{\"prompt\": \"a\", \"completion\": \"b\"},\r\n"
           "{\"prompt\": \"c\", \"completion\": \"d\"}]\n"s,
           "{\"data\": [{\"prompt\": \"a\", \"completion\": \"b\"},"
           "{\"prompt\": \"c\", \"completion\": \"d\"}], \"version\": 1}"s,
           "prompt,completion\na,b\r\n\"c\",d"s,
           "id,Completion,Prompt\n1,b,a\n2,d,c\n"s,
       }) {
    const RecordFile file = read(text);
    EXPECT_EQ(file.bad.size(), 0u) << text;
    ASSERT_EQ(file.records.size(), 2u) << text;
    EXPECT_EQ(file.records[0].prompt, "a") << text;
    EXPECT_EQ(file.records[1].text, "d") << text;
    EXPECT_EQ(file.records[1].number, 2u) << text;
  }
}

TEST(RecordFile, NumbersLines) {
  const RecordFile lines = read("{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n");
  EXPECT_EQ(lines.records[1].line, 3u);
  const RecordFile list = read("[\n{\"text\":\n\"a\"},\n{\"text\": \"b\"}\n]");
  EXPECT_EQ(list.records[0].line, 2u);
  EXPECT_EQ(list.records[1].line, 4u);
  const RecordFile table = read("text\n\"a\nb\"\nc\n");
  EXPECT_EQ(table.records[0].text, "a\nb");
  EXPECT_EQ(table.records[0].line, 2u);
  EXPECT_EQ(table.records[1].line, 4u);
}

TEST(RecordFile, AColumnMayHoldJson) {
  const RecordFile file =
      read("messages\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"a\"\"}]\"\n");
  ASSERT_EQ(file.records.size(), 1u);
  EXPECT_EQ(file.records[0].turns[0].message.content, "a");
}

TEST(RecordFile, MalformedLinesAreBadRecordsWithTheirPlace) {
  const RecordFile file =
      read("{\"text\": \"a\"}\n{\"text\": \"b\",}\n{\"text\": \n{\"txt\": \"c\"}\nrest\n");
  EXPECT_EQ(file.records.size(), 1u);
  ASSERT_EQ(file.bad.size(), 4u);
  EXPECT_EQ(file.bad[0].line, 2u);
  EXPECT_EQ(file.bad[0].reason.where, "line 2, column 14");
  EXPECT_TRUE(has(file.bad[0].reason.found, "string literal")) << file.bad[0].reason.text();
  EXPECT_EQ(file.bad[1].line, 3u);
  EXPECT_TRUE(has(file.bad[1].reason.found, "end of input")) << file.bad[1].reason.text();
  EXPECT_EQ(file.bad[2].reason.where, "line 4");
  EXPECT_TRUE(has(file.bad[2].reason.found, "txt"));
  EXPECT_EQ(file.bad[3].line, 5u);
  const RecordFile huge = read("{\"text\": \"a\"}\n{\"text\": \"b\", \"n\": 1e999}\n");
  ASSERT_EQ(huge.bad.size(), 1u);
  EXPECT_EQ(huge.bad[0].reason.where, "line 2");
  EXPECT_TRUE(has(huge.bad[0].reason.found, "1e999")) << huge.bad[0].reason.text();
  // The first line may be the broken one.
  EXPECT_EQ(read("{\"text\": \"a\n{\"text\": \"b\"}\n").bad.front().line, 1u);
}

TEST(RecordFile, BrokenBytesInLines) {
  const RecordFile file =
      read("{\"text\": \"a\xFF\"}\n{\"text\": \"\\ud800\"}\n{\"text\": \"ok\"}\n");
  EXPECT_EQ(file.records.size(), 1u);
  ASSERT_EQ(file.bad.size(), 2u);
  EXPECT_TRUE(has(file.bad[0].reason.found, "UTF-8")) << file.bad[0].reason.text();
}

TEST(RecordFile, Lists) {
  const RecordFile file =
      read("[{\"text\": \"a, ]\\\"\"}, 5, {\"text\": [1, 2]}, {\"text\" 1},\n]");
  EXPECT_EQ(file.records.size(), 1u);
  ASSERT_EQ(file.bad.size(), 4u);
  EXPECT_TRUE(has(file.bad[0].reason.where, "record 2 (line 1)")) << file.bad[0].reason.where;
  EXPECT_TRUE(has(file.bad[2].reason.where, "line 1, column")) << file.bad[2].reason.where;
  EXPECT_EQ(file.bad[3].line, 2u);
  EXPECT_TRUE(has(fails("[{\"text\": \"a\"},\n{\"text\": \"b").where, "line 2"));
  EXPECT_TRUE(has(fails("[{\"text\": \"a\"},\n").what, "never closed"));
  EXPECT_TRUE(has(fails("[{\"text\": \"a\"}]\n[2]").found, "[2]"));
  EXPECT_EQ(read("[]").records.size(), 0u);
}

TEST(RecordFile, Tables) {
  const RecordFile file = read("prompt,completion\na,b,c\n5\" disk,d\ne,\xFF\nf,g\n");
  EXPECT_EQ(file.records.size(), 1u);
  ASSERT_EQ(file.bad.size(), 3u);
  EXPECT_EQ(file.bad[0].reason.found, "3 fields");
  EXPECT_EQ(file.bad[0].reason.where, "line 2");
  EXPECT_TRUE(has(file.bad[1].reason.found, "quote"));
  EXPECT_TRUE(has(file.bad[2].reason.found, "0xFF"));
  const Error unbalanced = fails("prompt,completion\na,\"b\nc,d\n", "table.csv");
  EXPECT_EQ(unbalanced.where, "table.csv, line 2");
}

TEST(RecordFile, NamesThatPromiseSomethingElse) {
  EXPECT_TRUE(has(fails("a,b\n1,2\n", "a.csv").expected, "completion"));
  EXPECT_TRUE(has(fails("hello\n", "a.jsonl").found, "hello"));
  EXPECT_EQ(read("a,b\n1,2\n", "a.txt").form, FileForm::kText);
}

TEST(RecordFile, WhatIsNoText) {
  EXPECT_TRUE(has(fails("").what, "empty"));
  EXPECT_TRUE(has(fails(" \n\n\t", "x.txt").where, "x.txt"));
  EXPECT_TRUE(has(fails("\xEF\xBB\xBF").what, "empty"));
  const Error zero = fails("one\ntw\0o\n"s, "x.txt");
  EXPECT_TRUE(has(zero.what, "NUL"));
  EXPECT_EQ(zero.where, "x.txt, line 2, byte 6");
  EXPECT_EQ(fails("\xFF\xFEh\0i\0"s).code, ErrorCode::kUnsupported);
  const Error latin = fails("one\ncaf\xE9 noir\n", "x.txt");
  EXPECT_EQ(latin.where, "x.txt, line 2, byte 7");
  EXPECT_EQ(latin.found, "byte 0xE9");
}

}  // namespace
}  // namespace hone::tune
