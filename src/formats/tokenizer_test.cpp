// Tokenizers against their references: digests over a fuzzed corpus of 25,000 strings a model, and
// readable cases (tests/golden/tokenizer/make.py).
// SPDX-License-Identifier: Apache-2.0
#include "formats/tokenizer.h"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include "base/file.h"
#include "formats/gguf.h"
#include "formats/tokenizer_corpus.h"
#include "formats/tokenizer_regex.h"

namespace hone::formats {
namespace {

constexpr std::size_t kChunk = 100;  // strings a digest
const std::string kFolder = std::string(HONE_SOURCE_DIR) + "/tests/golden/tokenizer/";

std::string read_golden(const std::string& name) {
  const auto text = read_file(kFolder + name);
  EXPECT_TRUE(text.ok()) << (text.ok() ? "" : text.error().text());
  return text.ok() ? *text : std::string();
}

Result<Tokenizer> tokenizer_from_json(std::string_view json, std::string_view config = "") {
  auto vocabulary = vocabulary_from_tokenizer_json(json, config);
  if (!vocabulary) return vocabulary.error();
  return Tokenizer::create(std::move(*vocabulary));
}

Result<Tokenizer> tokenizer_from_gguf(const std::string& path, const std::string& pre = "") {
  auto file = GgufFile::open(path);
  if (!file) return file.error();
  Metadata metadata = file->metadata();
  if (!pre.empty()) metadata.set("tokenizer.ggml.pre", pre);
  auto vocabulary = vocabulary_from_gguf(metadata);
  if (!vocabulary) return vocabulary.error();
  return Tokenizer::create(std::move(*vocabulary));
}

std::string model_path(const std::string& name) {
  const char* cache = std::getenv("HONE_CACHE");
  const char* home = std::getenv("HOME");
  const std::string folder =
      cache != nullptr ? cache : std::string(home != nullptr ? home : "") + "/.cache/hone";
  return folder + "/models/" + name + ".gguf";
}

std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string hex_of_bytes(std::string_view bytes) {
  std::string hex;
  for (const char byte : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return hex;
}

// String i is asked with these, here and in make.py.
EncodeOptions options_of(std::uint32_t i) {
  EncodeOptions options;
  options.add_special = i % 3 == 0;
  options.parse_special = i % 2 == 0;
  options.invalid = InvalidUtf8::kReplace;
  return options;
}

void compare(const Tokenizer& tokenizer, const std::string& golden_name) {
  const auto golden = nlohmann::json::parse(read_golden(golden_name + ".gold.json"));
  const auto special_texts = golden["specials"].get<std::vector<std::string>>();
  const std::vector<std::string_view> specials(special_texts.begin(), special_texts.end());
  const bool valid_only = golden.value("valid_only", false);
  const auto& chunks = golden["chunks"];
  const auto& cases = golden["cases"];
  ASSERT_GE(chunks.size() * kChunk, 20'000u);

  corpus::Digest digest;
  std::size_t strings = 0;
  std::size_t wrong_chunks = 0;
  for (std::uint32_t i = 0; strings < chunks.size() * kChunk; ++i) {
    if (valid_only && corpus::may_be_broken(i)) continue;
    const std::string text = corpus::make_string(i, specials);
    const std::vector<TokenId> ids = tokenizer.encode(text, options_of(i));
    if (strings < cases.size()) {
      ASSERT_EQ(text, bytes_of_hex(cases[strings]["hex"])) << "the corpus itself differs";
      EXPECT_EQ(ids, cases[strings]["ids"].get<std::vector<TokenId>>())
          << "string " << i << ": " << text << " " << hex_of_bytes(text);
    }
    digest.add(ids);
    ++strings;
    if (strings % kChunk == 0) {
      const std::string expected = chunks[strings / kChunk - 1];
      if (fmt::format("{:016x}", digest.value()) != expected && wrong_chunks++ < 3) {
        ADD_FAILURE() << golden_name << ": a string up to number " << i << " differs";
      }
      digest = {};
    }
  }
  EXPECT_EQ(wrong_chunks, 0u);
}

// Whether decoding gives the bytes of every string of the corpus back; `lossless` says for which
// strings the vocabulary can.
template <typename Lossless>
void expect_round_trip(const Tokenizer& tokenizer, Lossless lossless) {
  std::size_t asked = 0;
  for (std::uint32_t i = 0; i < 20'000; ++i) {
    const std::string text = corpus::make_string(i, {});
    if (!lossless(text)) continue;
    ++asked;
    EncodeOptions options;
    options.add_special = false;
    options.parse_special = false;
    const std::vector<TokenId> ids = tokenizer.encode(text, options);
    ASSERT_EQ(hex_of_bytes(tokenizer.decode(ids, true)), hex_of_bytes(text)) << "string " << i;
  }
  EXPECT_GE(asked, 10'000u);
}

bool has_no_space_mark(const std::string& text) {
  // A broken character swallows part of the mark that a following space becomes.
  return text.find(kSpaceMark) == text.npos && find_invalid_utf8(text) == text.size();
}

class JsonTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(JsonTokenizer, AgreesWithHuggingFace) {
  const std::string name = GetParam();
  const auto tokenizer = tokenizer_from_json(read_golden(name + ".tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
  compare(*tokenizer, name);
}

INSTANTIATE_TEST_SUITE_P(Models, JsonTokenizer,
                         testing::Values("gpt2", "llama3", "qwen2", "smollm", "gemma", "llama2",
                                         "mistral"),
                         [](const auto& param) { return std::string(param.param); });

class GgufPreTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(GgufPreTokenizer, AgreesWithLlamaCpp) {
  const std::string pre = GetParam();
  const auto tokenizer = tokenizer_from_gguf(kFolder + "bpe.gguf", pre);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
  compare(*tokenizer, "gguf-" + pre);
}

INSTANTIATE_TEST_SUITE_P(Names, GgufPreTokenizer,
                         testing::Values("gpt-2", "smollm", "llama-bpe", "qwen2"));

TEST(Tokenizer, SentencePieceAgreesWithLlamaCpp) {
  const auto tokenizer = tokenizer_from_gguf(kFolder + "sentencepiece.gguf");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
  compare(*tokenizer, "gguf-sentencepiece");
  expect_round_trip(*tokenizer, has_no_space_mark);
}

class RealModel : public testing::TestWithParam<const char*> {};

TEST_P(RealModel, AgreesWithLlamaCpp) {
  const std::string name = GetParam();
  const std::string path = model_path(name);
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  const auto tokenizer = tokenizer_from_gguf(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
  compare(*tokenizer, name);
}

INSTANTIATE_TEST_SUITE_P(Models, RealModel,
                         testing::Values("smollm2-135m-instruct-q4_1", "gemma-3-270m-q4_k_m"));

TEST(Tokenizer, ByteLevelGivesEveryByteBack) {
  for (const std::string name : {"gpt2", "llama3"}) {
    const auto tokenizer = tokenizer_from_json(read_golden(name + ".tokenizer.json"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
    expect_round_trip(*tokenizer, [](const std::string&) { return true; });
  }
}

TEST(Tokenizer, CharactersGiveEveryByteBack) {
  for (const std::string name : {"gemma", "llama2"}) {
    const auto tokenizer = tokenizer_from_json(read_golden(name + ".tokenizer.json"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
    expect_round_trip(*tokenizer,
                      [](const std::string& text) { return text.find(kSpaceMark) == text.npos; });
  }
}

TEST(Tokenizer, RealModelsKnowTheirEnds) {
  const std::string path = model_path("smollm2-135m-instruct-q4_1");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  const auto tokenizer = tokenizer_from_gguf(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
  EXPECT_EQ(tokenizer->vocabulary_size(), 49152u);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_EQ(tokenizer->piece(2), "<|im_end|>");
  EXPECT_TRUE(tokenizer->is_end_of_generation(2));
  EXPECT_TRUE(tokenizer->is_end_of_generation(0));  // <|endoftext|>
  EXPECT_FALSE(tokenizer->is_end_of_generation(1));
  EXPECT_NE(tokenizer->vocabulary().chat_template.find("im_start"), std::string::npos);
}

TEST(Tokenizer, LongRunsTakeNoQuadraticTime) {
  const auto tokenizer = tokenizer_from_json(read_golden("gpt2.tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
  for (const char* unit : {"a", " ", "the", "é"}) {
    std::string text;
    while (text.size() < 300'000) text += unit;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(Tokenizer, SpecialTokensAreTextUnlessParsed) {
  const auto tokenizer = tokenizer_from_json(read_golden("gpt2.tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
  const TokenId start = tokenizer->find("<|im_start|>");
  EXPECT_EQ(tokenizer->encode("<|im_start|>"), std::vector<TokenId>{start});
  const auto plain = tokenizer->encode("<|im_start|>", {.parse_special = false});
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(tokenizer->decode(plain), "<|im_start|>");
  EXPECT_EQ(tokenizer->decode(std::vector{start}), "");
  EXPECT_EQ(tokenizer->decode(std::vector{start}, true), "<|im_start|>");
  EXPECT_EQ(tokenizer->piece(-1), "");
  EXPECT_EQ(tokenizer->piece(1'000'000), "");
}

TEST(Tokenizer, StreamGivesOnlyWholeCharacters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xE6\x9D"), "a");
  EXPECT_EQ(stream.push("\xB1\xF0\x9F"), "東");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80!"), "😀!");
  EXPECT_EQ(stream.push("\xFF"), "\xFF");  // can never become a character
  EXPECT_EQ(stream.push("x\xC3"), "x");
  EXPECT_EQ(stream.finish(), "\xC3");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Tokenizer, ErrorsNameTheComponent) {
  const auto error_of = [](std::string_view json) {
    const auto tokenizer = tokenizer_from_json(json);
    return tokenizer.ok() ? std::string() : tokenizer.error().text();
  };
  const auto contains = [](const std::string& text, const char* part) {
    return text.find(part) != text.npos;
  };
  EXPECT_TRUE(contains(error_of("{"), "no JSON object"));
  EXPECT_TRUE(contains(error_of(R"({"model":{"type":"Unigram"}})"), "Unigram"));
  EXPECT_TRUE(contains(
      error_of(R"({"model":{"vocab":{"a":0},"merges":[]},"normalizer":{"type":"Lowercase"}})"),
      "Lowercase"));
  EXPECT_TRUE(contains(error_of(R"({"model":{"vocab":{"a":0},"merges":["a b"]}})"), "merge 0"));
  EXPECT_TRUE(contains(error_of(R"({"model":{"vocab":{"a":4000000},"merges":[]}})"), "ids below"));
  EXPECT_TRUE(contains(error_of(R"({"model":{"vocab":{"a":0},"merges":[]},
                   "pre_tokenizer":{"type":"Split",
                                    "pattern":{"Regex":"("},"behavior":"Isolated"}})"),
                       "regular expression"));
  const auto unknown = tokenizer_from_gguf(kFolder + "bpe.gguf", "martian");
  ASSERT_FALSE(unknown.ok());
  EXPECT_TRUE(contains(unknown.error().text(), "martian"));
  EXPECT_TRUE(contains(unknown.error().text(), "qwen2"));
}

TEST(Regex, ClassesAreThoseOfTheReference) {
  Regex::Scratch scratch;
  RegexMatch match;
  const auto matches = [&](const char* pattern, const char* text, UnicodeEdition unicode) {
    const auto regex = Regex::compile(pattern, unicode);
    return regex.ok() && regex->find(text, 0, scratch, match);
  };
  EXPECT_FALSE(matches("\\s", "\u180e", UnicodeEdition::k16));
  EXPECT_TRUE(matches("\\S", "\u180e", UnicodeEdition::k16));
  EXPECT_TRUE(matches("[\\s]", "\u0085", UnicodeEdition::k16));
  EXPECT_TRUE(matches("\\p{L}", "\U00031350", UnicodeEdition::k15_1));  // Unicode 15
  EXPECT_FALSE(matches("\\P{L}", "\U00031350", UnicodeEdition::k15_1));
  EXPECT_TRUE(matches("[^\\p{N}]", "\U00031350", UnicodeEdition::k15_1));
  EXPECT_TRUE(matches("\\p{L}", "\U000105C0", UnicodeEdition::k16));  // Unicode 16
}

}  // namespace
}  // namespace hone::formats
