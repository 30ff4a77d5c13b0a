// What is not a gradient: programs that are asked, rewards, rankings, choices, directions.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/timing.h"
#include "feedback/choices.h"
#include "feedback/directions.h"
#include "feedback/program.h"
#include "feedback/reward.h"

namespace hone::feedback {
namespace {

TEST(Program, AnswersWhatItReads) {
  const std::string long_input(300'000, 'x');  // more than a pipe holds
  const auto counted = ask_program("wc -c", long_input);
  ASSERT_TRUE(counted.ok()) << counted.error().text();
  EXPECT_EQ(mean_reward(*counted, 7).ok() ? *mean_reward(*counted, 7) : 0.0, 300'000.0);
  // One that does not read its input is no failure.
  EXPECT_EQ(*ask_program("echo 3", long_input), "3\n");
}

TEST(Program, FailuresSayWhatHappened) {
  const auto failed = ask_program("echo no such model >&2; exit 3", "");
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(failed.error().text().find("exit status 3"), std::string::npos);
  EXPECT_NE(failed.error().text().find("no such model"), std::string::npos);
  EXPECT_NE(ask_program("kill -9 $$", "").error().text().find("signal 9"), std::string::npos);
  EXPECT_FALSE(ask_program("/no/such/program", "").ok());
}

TEST(Program, ThatHangsIsStoppedWithAllThatItStarted) {
  ProgramOptions options;
  options.seconds = 0.3;
  const double start = seconds_now();
  const auto hung = ask_program("sleep 100 & sleep 100", "", options);
  ASSERT_FALSE(hung.ok());
  EXPECT_NE(hung.error().text().find("0.3 seconds"), std::string::npos);
  EXPECT_LT(seconds_now() - start, 30);
  options.most_bytes = 1000;
  EXPECT_FALSE(ask_program("yes", "", options).ok());
}

TEST(Reward, IsOneNumberAnAnswerOrOneForAll) {
  EXPECT_EQ(*mean_reward("1\n0\n0.5\n", 3), 0.5);
  EXPECT_EQ(*mean_reward(" 0.25 ", 3), 0.25);
  for (const char* wrong : {"", "1 2", "nan", "inf", "1\nx\n2", "good", "1e999"}) {
    const auto found = mean_reward(wrong, 3);
    ASSERT_FALSE(found.ok()) << wrong;
    EXPECT_NE(found.error().text().find("3 numbers"), std::string::npos);
  }
}

TEST(Ranking, IsCandidatesBestFirst) {
  EXPECT_EQ(*ranking_of("2 0 1\n", 3), (std::vector<std::int64_t>{2, 0, 1}));
  EXPECT_EQ(*ranking_of("1>0", 3), (std::vector<std::int64_t>{1, 0}));
  for (const char* wrong : {"", "3", "0 0", "1=2", "-1", "best"}) {
    EXPECT_FALSE(ranking_of(wrong, 3).ok()) << wrong;
  }
}

TEST(Reward, ByComparison) {
  EXPECT_EQ(exact_reward({"", " Paris.\n", {"paris"}}), 1.0);
  EXPECT_EQ(exact_reward({"", "Paris, France", {"paris"}}), 0.0);
  EXPECT_NEAR(f1_reward({"", "the city of Paris", {"Paris", "in Rome"}}), 0.4, 1e-12);
  EXPECT_EQ(f1_reward({"", "", {"Paris"}}), 0.0);
}

// Two questions: of three choices with one token each, and of two with two and one.
TEST(Choices, LossAndSlopesByDifferences) {
  TokenBatch batch;
  batch.rows.assign(6, 0);
  batch.row_choices = {0, 1, 2, 3, 3, 4};
  batch.choice_questions = {0, 0, 0, 1, 1};
  std::vector<float> losses{1.5F, 0.5F, 2.0F, 1.0F, 0.25F, 3.0F};
  const ChoiceLoss found = choice_loss(losses, batch);
  EXPECT_EQ(found.right, 1);  // of the first the second is likelier
  EXPECT_NEAR(
      found.loss,
      (std::log(1 + std::exp(1.0) + std::exp(-0.5)) + std::log(1 + std::exp(0.625 - 3.0))) / 2,
      1e-6);
  for (std::size_t row = 0; row < losses.size(); ++row) {
    std::vector<float> ahead = losses, behind = losses;
    ahead[row] += 0x1p-8F;
    behind[row] -= 0x1p-8F;
    const double slope =
        (choice_loss(ahead, batch).loss - choice_loss(behind, batch).loss) / 0x1p-7;
    EXPECT_NEAR(found.slopes[row], slope, 1e-5) << row;
  }
}

TEST(Directions, AreTheSameForAnyCutAndHaveUnitVariance) {
  for (const Noise noise : {Noise::kRademacher, Noise::kGaussian}) {
    const DirectionKey key{5, 2, 1, 7};
    std::vector<float> whole(1000);
    fill_direction(noise, key, 0, whole);
    std::vector<float> part(1000 - 384);
    fill_direction(noise, key, 384, part);
    EXPECT_TRUE(std::ranges::equal(part, std::span(whole).subspan(384)));
    std::vector<float> sum(1000, 1.0F);
    add_direction(noise, key, 0, 0.5F, sum);
    EXPECT_EQ(sum[999], 1.0F + 0.5F * whole[999]);
    double mean = 0, square = 0;
    for (const float value : whole) {
      mean += double{value} / 1000;
      square += double{value} * double{value} / 1000;
    }
    EXPECT_NEAR(mean, 0.0, 4 / std::sqrt(1000.0));
    EXPECT_NEAR(square, 1.0, 4 * std::sqrt(2.0 / 1000));
    for (const DirectionKey& other : {DirectionKey{6, 2, 1, 7}, DirectionKey{5, 3, 1, 7},
                                      DirectionKey{5, 2, 0, 7}, DirectionKey{5, 2, 1, 8}}) {
      std::vector<float> another(1000);
      fill_direction(noise, other, 0, another);
      double dot = 0;
      for (std::size_t i = 0; i < 1000; ++i) dot += double{whole[i]} * double{another[i]};
      EXPECT_LT(std::abs(dot), 5 * std::sqrt(1000.0));
    }
  }
}

}  // namespace
}  // namespace hone::feedback
