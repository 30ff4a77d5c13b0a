// Whole files: counts, checks, what stops loading, and the order of epochs.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/dataset.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "tune/data/small_tokenizer.h"

namespace hone::tune {
namespace {

using formats::ChatTemplate;
using formats::Tokenizer;

std::string line(const std::string& question, const std::string& answer) {
  return fmt::format(R"({{"prompt": "{}", "completion": "{}"}})", question, answer) + "\n";
}

Result<Dataset> load(const std::string& text, DataOptions options = {}) {
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  const ChatTemplate chat = *ChatTemplate::compile(testing_data::kChatMl);
  return dataset_of_text(text, "data.jsonl", tokenizer, &chat, options);
}

const DataCheck& check_named(const DataReport& report, std::string_view part) {
  const auto found = std::find_if(report.checks.begin(), report.checks.end(), [&](const auto& c) {
    return c.name.find(part) != std::string::npos;
  });
  EXPECT_NE(found, report.checks.end()) << part;
  return *found;
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

TEST(Dataset, Counts) {
  std::string text;
  for (int i = 0; i < 10; ++i) text += line(std::string(10 + i, 'q'), "answer");
  const auto dataset = load(text);
  ASSERT_TRUE(dataset.ok()) << dataset.error().text();
  const DataReport& report = dataset->report;
  EXPECT_EQ(report.format, "JSON lines");
  EXPECT_EQ(report.shape, "prompt and completion");
  EXPECT_EQ(report.unit, "line");
  EXPECT_EQ(report.records, 10);
  EXPECT_EQ(report.kept, 10);
  EXPECT_EQ(report.dropped, 0);
  EXPECT_EQ(report.learned, 10 * 7);  // six letters and the stop token
  // "<s>user\n" 6, the question, "<e>\n" 2, "<s>assistant\n" 11, "answer" 6, "<e>\n" 2.
  EXPECT_EQ(report.lengths.longest, 19 + 27);
  EXPECT_EQ(report.lengths.p10, 10 + 27);
  EXPECT_EQ(report.lengths.p50, 14 + 27);
  EXPECT_EQ(report.lengths.p90, 18 + 27);
  EXPECT_EQ(report.tokens, 10 * 27 + 145);
  EXPECT_EQ(report.bytes, static_cast<std::int64_t>(text.size()));
  EXPECT_EQ(report.sha256.size(), 64u);
  EXPECT_EQ(dataset->examples[4].record, 5u);
  for (const DataCheck& check : report.checks) {
    EXPECT_TRUE(check.ok) << check.name << ": " << check.detail;
  }
  EXPECT_EQ(report.checks.size(), 6u);
}

TEST(Dataset, CountsDuplicatesAndTruncations) {
  const auto dataset =
      load(line("a", "b") + line("c", "d") + line("a", "b") + line("a", "b") + line("a", "b "), {});
  EXPECT_EQ(dataset->report.duplicates, 2);
  ASSERT_EQ(dataset->report.first_duplicates.size(), 2u);
  EXPECT_EQ(dataset->report.first_duplicates[1].record, 4u);
  EXPECT_EQ(dataset->report.first_duplicates[1].first, 1u);
  EXPECT_EQ(dataset->report.kept, 5);  // counted, not removed

  const auto cut = load(line("a", "bcdefgh") + line("a", "b"), {.length = 24});
  EXPECT_EQ(cut->report.truncated, 1);
  EXPECT_TRUE(cut->examples[0].truncated);
  EXPECT_EQ(cut->report.lengths.longest, 24);
  EXPECT_TRUE(check_named(cut->report, "stop token").ok);
}

TEST(Dataset, StopsWhenTooMuchIsUnusable) {
  std::string good;
  for (int i = 0; i < 199; ++i) good += line(fmt::format("q{}", i), "a");
  const auto few = load(good + "{\"prompt\": 1}\n");  // 1 of 200
  ASSERT_TRUE(few.ok()) << few.error().text();
  EXPECT_EQ(few->report.dropped, 1);
  ASSERT_EQ(few->report.first_dropped.size(), 1u);
  EXPECT_EQ(few->report.first_dropped[0].record, 200u);
  EXPECT_EQ(few->report.first_dropped[0].reason.where, "line 200");

  const auto many = load("{\"text\": \n" + good + "{\"prompt\": 1}\n" + line("a", ""));
  ASSERT_FALSE(many.ok());
  const Error& error = many.error();
  EXPECT_EQ(error.code, ErrorCode::kCorrupt);
  EXPECT_TRUE(has(error.what, "3 of 202 records (1.49 %)")) << error.text();
  EXPECT_TRUE(has(error.where, "data.jsonl, line 1")) << error.text();
  EXPECT_TRUE(has(error.found, "line 201")) << error.text();
  EXPECT_TRUE(has(error.found, "line 202")) << error.text();
  EXPECT_TRUE(has(error.advice, "1 %")) << error.text();
  EXPECT_EQ(
      load("{\"text\": \n" + good + "{\"prompt\": 1}\n" + line("a", ""), {.most_dropped = 0.02})
          ->report.dropped,
      3);
  const Error alike = load(line("a", "") + line("b", "") + line("c", "d")).error();
  EXPECT_TRUE(has(alike.found, "the same in line 2")) << alike.text();
  // One of a few is more than 1 %.
  EXPECT_FALSE(load(line("a", "b") + line("c", "")).ok());
  // All is too much, whatever is allowed.
  EXPECT_FALSE(load(line("c", ""), {.most_dropped = 1}).ok());
}

TEST(Dataset, RefusesEmptyFilesAndSenselessOptions) {
  EXPECT_TRUE(has(load("").error().what, "empty"));
  EXPECT_TRUE(has(load("[]").error().what, "no examples"));
  EXPECT_EQ(load(line("a", "b"), {.length = 1}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(load(line("a", "b"), {.most_dropped = 2}).error().code, ErrorCode::kInvalidArgument);
  const Tokenizer tokenizer = testing_data::chatml_tokenizer();
  EXPECT_EQ(load_dataset("/nowhere/data.jsonl", tokenizer, nullptr, {}).error().code,
            ErrorCode::kNotFound);
}

TEST(Dataset, MixedShapesAndFiles) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("hone_data_{}.json", getpid()))
          .string();
  ASSERT_TRUE(write_file_atomically(path, "[" + line("a", "b") + ",{\"text\": \"t\"}]").ok());
  const Tokenizer tokenizer = testing_data::base_tokenizer();
  const auto dataset = load_dataset(path, tokenizer, nullptr, {});
  std::filesystem::remove(path);
  ASSERT_TRUE(dataset.ok()) << dataset.error().text();
  EXPECT_EQ(dataset->report.format, "JSON");
  EXPECT_EQ(dataset->report.shape, "prompt and completion 1, text 1");
  EXPECT_EQ(dataset->report.unit, "record");
  EXPECT_EQ(dataset->examples[1].record, 2u);
}

TEST(Dataset, PlainText) {
  const Tokenizer tokenizer = testing_data::base_tokenizer();
  const auto dataset =
      dataset_of_text(std::string(100, 'a'), "a.txt", tokenizer, nullptr, {.length = 11});
  ASSERT_TRUE(dataset.ok()) << dataset.error().text();
  EXPECT_EQ(dataset->report.unit, "piece");
  EXPECT_EQ(dataset->report.kept, 11);  // 100 letters and EOS, ten at a time behind BOS
  EXPECT_EQ(dataset->report.truncated, 0);
  EXPECT_EQ(dataset->report.learned, 101);
  EXPECT_EQ(dataset->report.duplicates, 9);
}

// Each check can fail, and says where.
TEST(Dataset, ChecksFail) {
  const auto foreign = load(line("a", "b") + line("x <|im_end|>", "c"));
  EXPECT_FALSE(check_named(foreign->report, "special strings in the data").ok);
  EXPECT_TRUE(has(check_named(foreign->report, "special strings in the data").detail, "line 2"));

  // A tokenizer that lacks the template's special strings.
  const Tokenizer base = testing_data::base_tokenizer();
  const ChatTemplate chatml = *ChatTemplate::compile(testing_data::kChatMl);
  const auto unfit = dataset_of_text(line("a", "b"), "d", base, &chatml, {});
  ASSERT_TRUE(unfit.ok()) << unfit.error().text();
  const DataCheck& markers = check_named(unfit->report, "single ids");
  EXPECT_FALSE(markers.ok);
  EXPECT_TRUE(has(markers.detail, "<|im_start|> becomes 12 tokens")) << markers.detail;
  // It also wants a BOS that this template does not write.
  EXPECT_FALSE(check_named(unfit->report, "beginning-of-sequence").ok);

  // Two BOS, as where a template writes one and the tokenizer adds another.
  const ChatTemplate doubled = *ChatTemplate::compile(
      "{{ bos_token + bos_token }}{% for m in messages %}{{ m['content'] + eos_token }}"
      "{% endfor %}");
  const auto two = dataset_of_text(line("a", "b"), "d", base, &doubled, {});
  EXPECT_FALSE(check_named(two->report, "beginning-of-sequence").ok);

  // A tokenizer without any stop token.
  const Tokenizer endless = testing_data::small_tokenizer({{"<s>"}, "<s>", "", true});
  const auto unstopped = dataset_of_text("{\"text\": \"a\"}", "d", endless, nullptr, {});
  ASSERT_TRUE(unstopped.ok()) << unstopped.error().text();
  EXPECT_FALSE(check_named(unstopped->report, "stop token").ok);
}

TEST(EpochOrder, IsAPermutationOfItsArguments) {
  for (const std::size_t count : {0u, 1u, 2u, 7u, 1000u}) {
    auto order = epoch_order(count, 5, 3);
    EXPECT_EQ(order, epoch_order(count, 5, 3));
    std::sort(order.begin(), order.end());
    std::vector<std::size_t> all(count);
    std::iota(all.begin(), all.end(), std::size_t{0});
    EXPECT_EQ(order, all);
  }
  EXPECT_NE(epoch_order(100, 5, 3), epoch_order(100, 5, 4));
  EXPECT_NE(epoch_order(100, 5, 3), epoch_order(100, 6, 3));
  // The same on every machine.
  EXPECT_EQ(epoch_order(5, 0, 0), (std::vector<std::size_t>{1, 2, 3, 0, 4}));
}

TEST(EpochOrder, EveryPlaceIsEquallyLikely) {
  // 4 examples, 2,400 epochs: each of the 24 orders is expected 100 times; the chi-squared
  // statistic of 23 degrees of freedom is above 49.7 once in 1,000 seeds.
  std::vector<int> counts(256);
  for (std::int64_t epoch = 0; epoch < 2400; ++epoch) {
    const auto order = epoch_order(4, 1, epoch);
    ++counts[order[0] * 64 + order[1] * 16 + order[2] * 4 + order[3]];
  }
  double statistic = 0;
  int orders = 0;
  for (const int count : counts) {
    if (count == 0) continue;
    ++orders;
    statistic += (count - 100.0) * (count - 100.0) / 100;
  }
  EXPECT_EQ(orders, 24);
  EXPECT_LT(statistic, 49.7);
}

}  // namespace
}  // namespace hone::tune
