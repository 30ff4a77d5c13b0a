// Ids and masks against transformers (tests/golden/data/make.py), with the real tokenizers.
// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <optional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/system.h"
#include "formats/conversation.h"
#include "formats/gguf.h"
#include "tune/data/dataset.h"

namespace hone::tune {
namespace {

using formats::ChatTemplate;
using formats::Message;
using formats::Tokenizer;

nlohmann::json golden(const std::string& name) {
  const auto text = read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/" + name);
  EXPECT_TRUE(text.ok()) << text.error().text();
  return text ? nlohmann::json::parse(*text) : nlohmann::json();
}

// The tokenizer of a model in the cache, if it is there.
std::optional<Tokenizer> cached_tokenizer(const std::string& file) {
  const std::string path = cache_folder() + "/models/" + file;
  if (!std::filesystem::exists(path)) return std::nullopt;
  const auto gguf = formats::GgufFile::open(path);
  if (!gguf) return std::nullopt;
  auto vocabulary = formats::vocabulary_from_gguf(gguf->metadata());
  if (!vocabulary) return std::nullopt;
  return *Tokenizer::create(*std::move(vocabulary));
}

// Every conversation of the golden file: the same ids, the same mask; and the prompt of each answer
// is what serving gives.
void compare(const Tokenizer& tokenizer, const ChatTemplate& chat, const std::string& name) {
  const auto maker = make_example_maker(tokenizer, &chat, 1000, false);
  ASSERT_TRUE(maker.ok()) << maker.error().text();
  const nlohmann::json cases = golden("data/golden.json")[name];
  ASSERT_GE(cases.size(), 5u);
  for (const auto& expected : cases) {
    const auto record = record_of_json(expected);
    ASSERT_TRUE(record.ok()) << record.error().text();
    const auto made = make_example(*maker, *record);
    ASSERT_TRUE(made.ok()) << made.error().text();
    const Example& example = made->example;
    EXPECT_EQ(tokenizer.decode(example.tokens, true), expected["text"].get<std::string>());
    EXPECT_EQ(example.tokens, expected["ids"].get<std::vector<formats::TokenId>>())
        << expected["text"];
    EXPECT_EQ(example.learn, expected["mask"].get<std::vector<std::uint8_t>>()) << expected["text"];
    EXPECT_EQ(made->stopped, made->answers);
    EXPECT_TRUE(made->one_bos);
    std::vector<Message> messages;
    for (const Turn& turn : record->turns) {
      if (turn.learn) {
        const auto served =
            formats::conversation_text(chat, tokenizer, messages, formats::ConversationEnd::kOpen);
        ASSERT_TRUE(served.ok()) << served.error().text();
        EXPECT_TRUE(expected["text"].get<std::string>().starts_with(*served));
        const auto prompt = formats::conversation_tokens(tokenizer, *served);
        ASSERT_LT(prompt.size(), example.tokens.size());
        EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), example.tokens.begin()));
        EXPECT_EQ(example.learn[prompt.size()], 1);
      }
      messages.push_back(turn.message);
    }
  }
}

TEST(DataGolden, SmolLm2) {
  const auto tokenizer = cached_tokenizer("smollm2-135m-instruct-q4_1.gguf");
  if (!tokenizer) GTEST_SKIP() << "smollm2 is not in the cache: hone fetch smollm2";
  compare(*tokenizer, *ChatTemplate::compile(tokenizer->vocabulary().chat_template), "smollm2");
}

TEST(DataGolden, Gemma3) {
  const auto tokenizer = cached_tokenizer("gemma-3-270m-q4_k_m.gguf");
  if (!tokenizer) GTEST_SKIP() << "gemma3 is not in the cache: hone fetch gemma3";
  // The file is of a model that was not taught to chat; its family's template stands in.
  const auto source = golden("chat_template/golden.json")["templates"]["gemma"];
  compare(*tokenizer, *ChatTemplate::compile(source.get<std::string>()), "gemma");
}

// The data set that the project brings along.
TEST(DataGolden, TheManualIsSound) {
  const auto tokenizer = cached_tokenizer("smollm2-135m-instruct-q4_1.gguf");
  if (!tokenizer) GTEST_SKIP() << "smollm2 is not in the cache: hone fetch smollm2";
  const ChatTemplate chat = *ChatTemplate::compile(tokenizer->vocabulary().chat_template);
  const std::string folder = std::string(HONE_SOURCE_DIR) + "/recipes/data/";
  for (const char* file : {"manual.jsonl", "manual-questions.jsonl"}) {
    const auto dataset = load_dataset(folder + file, *tokenizer, &chat, {.length = 128});
    ASSERT_TRUE(dataset.ok()) << dataset.error().text();
    EXPECT_EQ(dataset->report.dropped + dataset->report.duplicates + dataset->report.truncated, 0);
    EXPECT_GE(dataset->report.kept, 12);
    for (const DataCheck& check : dataset->report.checks) {
      EXPECT_TRUE(check.ok) << file << ": " << check.name << ": " << check.detail;
    }
  }
}

}  // namespace
}  // namespace hone::tune
