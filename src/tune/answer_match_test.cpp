// When an answer counts as right.
// SPDX-License-Identifier: Apache-2.0
#include "tune/answer_match.h"

#include <gtest/gtest.h>

namespace hone::tune {
namespace {

// What is extracted of `said` matches `answer`.
bool right(const MatchOptions& options, std::string_view said, const std::string& answer) {
  const auto matcher = AnswerMatcher::create(options);
  EXPECT_TRUE(matcher);
  const auto extracted = matcher->extract(said);
  return extracted && matcher->matches(*extracted, std::span(&answer, 1));
}

TEST(AnswerMatch, SpaceAtTheEndsDoesNotCount) {
  EXPECT_TRUE(right({}, " Paris\n", "Paris"));
  EXPECT_TRUE(right({}, "Paris", " Paris "));
  EXPECT_FALSE(right({}, "paris", "Paris"));
  EXPECT_FALSE(right({}, "Paris.", "Paris"));
  EXPECT_FALSE(right({}, "", "Paris"));
  EXPECT_FALSE(right({.keep_space = true}, " Paris", "Paris"));
}

TEST(AnswerMatch, CaseAndPunctuationOnRequest) {
  EXPECT_TRUE(right({.ignore_case = true}, "STRASSE", "straße"));
  EXPECT_TRUE(right({.ignore_case = true}, "ΣΊΣΥΦΟΣ", "σίσυφος"));
  EXPECT_FALSE(right({.ignore_case = true}, "a\xFF", "A"));
  EXPECT_TRUE(right({.ignore_punctuation = true}, "\"Well,   done!\"", "Well done"));
  EXPECT_FALSE(right({.ignore_punctuation = true}, "Welldone", "Well done"));
  EXPECT_TRUE(right({.ignore_case = true, .ignore_punctuation = true}, "Paris.", "paris"));
}

TEST(AnswerMatch, NumbersOnRequest) {
  const MatchOptions numbers{.numbers = true};
  EXPECT_TRUE(right(numbers, "$1,234.00", "1234"));
  EXPECT_TRUE(right(numbers, "0.3", "0.30"));
  EXPECT_TRUE(right(numbers, "+7.", "7"));
  EXPECT_FALSE(right(numbers, "12345", "1234"));
  EXPECT_FALSE(right(numbers, "nan", "inf"));
  EXPECT_FALSE(right(numbers, "", "0"));
  EXPECT_TRUE(right(numbers, "no number", "no number"));
  EXPECT_FALSE(right({}, "0.3", "0.30"));
}

TEST(AnswerMatch, TheLastMatchIsExtracted) {
  const MatchOptions options{.extract = "(-?[0-9.,]+)", .extract_answer = "#### (.*)$"};
  EXPECT_TRUE(right(options, "First 3, then 4: 12", "3 * 4 = 12\n#### 12"));
  EXPECT_FALSE(right(options, "First 12, then 4", "#### 12"));
  EXPECT_FALSE(right(options, "no number", "#### 12"));
  EXPECT_FALSE(right(options, "12", "12")) << "the answer has no ####";
  // Without a group, all of the match; with an optional one, the match where it took no part.
  EXPECT_TRUE(right({.extract = "[a-z]+"}, "12 abc", "abc"));
  EXPECT_TRUE(right({.extract = "x(y)?"}, "x", "x"));
  EXPECT_TRUE(right({.extract = "^(.*)$"}, "one\ntwo", "two"));
}

TEST(AnswerMatch, HardCasesEnd) {
  const auto matcher = AnswerMatcher::create({.extract = "(a*)*b"});
  ASSERT_TRUE(matcher);
  EXPECT_FALSE(matcher->extract(std::string(5000, 'a')));
  const auto nothing = AnswerMatcher::create({.extract = "x*"});
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->extract("aüa"), "");  // empty matches, also within a character
  EXPECT_EQ(nothing->extract("\xFFx"), "");
}

TEST(AnswerMatch, WrongExpressionsAreNamed) {
  const auto wrong = AnswerMatcher::create({.extract = "(a"});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(wrong.error().where, "--extract");
  EXPECT_NE(wrong.error().found.find("(a"), std::string::npos);
  const auto answer = AnswerMatcher::create({.extract_answer = "[z-a]"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().where, "--extract-answer");
}

}  // namespace
}  // namespace hone::tune
