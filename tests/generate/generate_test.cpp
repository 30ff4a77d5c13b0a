// Text in, text out: what is shown, where an answer ends and why, and perplexity as llama.cpp has
// it.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "../support/models.h"
#include "engine/generate.h"

namespace hone::testing_models {
namespace {

using engine::Generated;
using engine::GenerateOptions;
using engine::Session;
using engine::SessionOptions;
using engine::StopReason;
using engine::TokenId;
using formats::Tokenizer;

constexpr const char* kSmol = "smollm2-135m-instruct-q4_1.gguf";

// For a model that has no tokenizer: each token ends one euro sign, has two letters of its own, and
// begins the next, so that every border of tokens lies within a character.
Result<Tokenizer> euro_tokenizer(std::int64_t size, std::vector<TokenId> ends = {}) {
  formats::Vocabulary vocabulary;
  for (std::int64_t i = 0; i < size; ++i) {
    // In GPT-2's byte alphabet: 82 AC, letters, E2.
    vocabulary.tokens.push_back(fmt::format("\xC4\xA4\xC2\xAC{}{}\xC3\xA2",
                                            static_cast<char>('a' + i / 16),
                                            static_cast<char>('A' + i % 16)));
    vocabulary.types.push_back(formats::TokenType::kNormal);
  }
  vocabulary.end_of_generation = std::move(ends);
  return Tokenizer::create(std::move(vocabulary));
}

bool is_utf8(const std::string& text) {
  try {
    return !nlohmann::json(text).dump().empty();
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

struct Shown {
  Generated result;
  std::vector<std::string> pieces;
  std::int64_t length = 0;  // of the sequence afterwards
  std::string all() const {
    std::string out;
    for (const std::string& piece : pieces) out += piece;
    return out;
  }
};

Result<Shown> answer(Session& session, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                     const GenerateOptions& options) {
  Shown out;
  const engine::SequenceId sequence = session.begin();
  auto result = engine::generate(session, tokenizer, sequence, prompt, options,
                                 [&](std::string_view text) { out.pieces.emplace_back(text); });
  out.length = session.length(sequence);
  session.end(sequence);
  if (!result) return result.error();
  out.result = *std::move(result);
  return out;
}

class GenerateOnTiny : public testing::Test {
 protected:
  void SetUp() override {
    options_.sampling.temperature = 1;
    options_.sampling.seed = 3;
    options_.most_tokens = 24;
    open(0);
  }
  void open(std::int64_t context) {
    SessionOptions how;
    how.threads = 2;
    how.context = context;
    auto session = Session::open(golden_folder("llama"), how);
    ASSERT_TRUE(session.ok()) << session.error().text();
    session_ = *std::move(session);
  }
  Shown run(std::vector<TokenId> ends = {}) {
    const auto tokenizer = euro_tokenizer(session_->config().vocabulary, std::move(ends));
    EXPECT_TRUE(tokenizer.ok()) << (tokenizer.ok() ? "" : tokenizer.error().text());
    if (!tokenizer) return {};
    auto shown = answer(*session_, *tokenizer, prompt_, options_);
    EXPECT_TRUE(shown.ok()) << (shown.ok() ? "" : shown.error().text());
    if (!shown) return {};
    EXPECT_EQ(shown->all(), shown->result.text);
    return *std::move(shown);
  }

  std::vector<TokenId> prompt_ = {3, 1, 4, 1, 5};
  GenerateOptions options_;
  std::unique_ptr<Session> session_;
};

TEST_F(GenerateOnTiny, PiecesAreWholeCharacters) {
  const Shown shown = run();
  ASSERT_EQ(shown.result.tokens.size(), 24u);
  EXPECT_EQ(shown.result.reason, StopReason::kLength);
  ASSERT_GT(shown.pieces.size(), 20u) << "the text does not stream";
  // The text begins with two bytes and ends with one that belong to no character of it.
  for (std::size_t i = 0; i < shown.pieces.size(); ++i) {
    std::string piece = shown.pieces[i];
    if (i == 0) piece.erase(0, 2);
    if (i + 1 == shown.pieces.size()) piece.pop_back();
    EXPECT_TRUE(is_utf8(piece)) << "piece " << i;
  }
}

TEST_F(GenerateOnTiny, EndsBeforeStopText) {
  const std::string whole = run().result.text;
  ASSERT_GT(whole.size(), 60u);
  // Letters of one token, the sign that two tokens share, a letter of the next; tokens are five
  // bytes. One token, three tokens, and the middle of a token too.
  for (const auto& [at, size] : {std::pair{23, 6}, {27, 5}, {22, 14}, {32, 2}}) {
    const std::string stop =
        whole.substr(static_cast<std::size_t>(at), static_cast<std::size_t>(size));
    options_.stops = {"never", stop, ""};
    const Shown shown = run();
    EXPECT_EQ(shown.result.reason, StopReason::kStopText) << at;
    EXPECT_EQ(shown.result.text, whole.substr(0, whole.find(stop))) << at;
    EXPECT_LT(shown.result.tokens.size(), 12u);
  }
  // The first of several; and what only begins like a stop text is shown in the end.
  options_.stops = {whole.substr(48, 3), whole.substr(23, 6)};
  const std::size_t first = std::min(whole.find(options_.stops[0]), whole.find(options_.stops[1]));
  EXPECT_EQ(run().result.text, whole.substr(0, first));
  options_.stops = {whole.substr(whole.size() - 9) + "more"};
  EXPECT_EQ(run().result.text, whole);
}

TEST_F(GenerateOnTiny, MostTokens) {
  for (const std::int64_t most : {0, 1, 7}) {
    options_.most_tokens = most;
    const Shown shown = run();
    EXPECT_EQ(static_cast<std::int64_t>(shown.result.tokens.size()), most);
    EXPECT_EQ(shown.result.reason, StopReason::kLength);
    EXPECT_EQ(shown.result.prompt_tokens, 5);
    // The last token was not evaluated.
    EXPECT_EQ(shown.length, 5 + std::max<std::int64_t>(most - 1, 0));
  }
}

TEST_F(GenerateOnTiny, EndingTokenEndsAndIsNotKept) {
  const std::vector<TokenId> free = run().result.tokens;
  ASSERT_EQ(free.size(), 24u);
  const auto first = std::find(free.begin(), free.end(), free[9]);
  const Shown shown = run({free[9]});
  EXPECT_EQ(shown.result.reason, StopReason::kEnd);
  EXPECT_EQ(shown.result.tokens, std::vector<TokenId>(free.begin(), first));
  EXPECT_EQ(shown.length, 5 + (first - free.begin()));
  options_.ignore_end = true;
  EXPECT_EQ(run({free[9]}).result.tokens, free);
}

TEST_F(GenerateOnTiny, ContextEnds) {
  open(16);
  const Shown shown = run();
  EXPECT_EQ(shown.result.reason, StopReason::kContext);
  EXPECT_EQ(shown.length, 16);
  // One more than the sequence holds: it was sampled from the last place.
  EXPECT_EQ(shown.result.tokens.size(), 16u - 5 + 1);
  const std::vector<TokenId> longer(17, 1);
  const auto tokenizer = euro_tokenizer(session_->config().vocabulary);
  ASSERT_TRUE(tokenizer.ok());
  const auto refused = answer(*session_, *tokenizer, longer, options_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfRange);
}

TEST_F(GenerateOnTiny, InterruptEnds) {
  int asked = 0;
  options_.interrupted = [&] { return ++asked == 3; };
  const Shown shown = run();
  EXPECT_EQ(shown.result.reason, StopReason::kInterrupted);
  EXPECT_EQ(shown.result.tokens.size(), 3u);
}

TEST_F(GenerateOnTiny, EmptyPromptIsAnError) {
  prompt_.clear();
  const auto tokenizer = euro_tokenizer(session_->config().vocabulary);
  ASSERT_TRUE(tokenizer.ok());
  const auto refused = answer(*session_, *tokenizer, prompt_, options_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().what.find("prompt"), std::string::npos);
  EXPECT_FALSE(refused.error().advice.empty());
}

TEST_F(GenerateOnTiny, PerplexityNeedsOneChunk) {
  const auto tokenizer = euro_tokenizer(session_->config().vocabulary);
  ASSERT_TRUE(tokenizer.ok());
  const auto refused = engine::perplexity(*session_, *tokenizer, "", 64);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().what.find("too short"), std::string::npos);
  EXPECT_NE(refused.error().expected.find("64"), std::string::npos);
}

struct Real {
  std::unique_ptr<Session> session;
  std::optional<Tokenizer> tokenizer;
};

Real open_real(const std::string& path, std::int64_t context) {
  SessionOptions how;
  how.context = context;
  Real out;
  auto session = Session::open(path, how);
  EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
  if (!session) return out;
  out.session = *std::move(session);
  auto vocabulary = out.session->source().vocabulary();
  EXPECT_TRUE(vocabulary.ok());
  if (!vocabulary) return out;
  auto tokenizer = Tokenizer::create(*std::move(vocabulary));
  EXPECT_TRUE(tokenizer.ok());
  if (tokenizer) out.tokenizer.emplace(*std::move(tokenizer));
  return out;
}

TEST(GenerateOnSmol, StreamsUtf8AndStops) {
  const std::string path = cached_model(kSmol);
  if (path.empty()) GTEST_SKIP() << "the model is not in the cache: hone fetch smollm2";
  const Real real = open_real(path, 256);
  ASSERT_TRUE(real.tokenizer.has_value());
  // Greedy decoding goes on with signs whose bytes are several tokens.
  const auto prompt = real.tokenizer->encode(
      "🦉🪐🦉🪐🦉🪐🦉🪐🦉🪐🦉🪐🦉🪐🦉🪐🦉🪐🦉🪐");
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.most_tokens = 40;
  const auto shown = answer(*real.session, *real.tokenizer, prompt, options);
  ASSERT_TRUE(shown.ok()) << shown.error().text();
  EXPECT_EQ(shown->all(), shown->result.text);
  ASSERT_GT(shown->pieces.size(), 2u);
  int broken = 0;
  for (const TokenId token : shown->result.tokens) {
    broken += is_utf8(std::string(real.tokenizer->piece(token))) ? 0 : 1;
  }
  EXPECT_GT(broken, 0) << "no token ends within a character: " << shown->result.text;
  // The last piece may be cut by the limit of tokens.
  for (std::size_t i = 0; i + 1 < shown->pieces.size(); ++i) {
    EXPECT_TRUE(is_utf8(shown->pieces[i])) << "piece " << i;
  }
  // Two signs of four bytes each, out of the middle of the free answer.
  ASSERT_GE(shown->result.text.size(), 12u);
  options.stops = {shown->result.text.substr(4, 8)};
  const std::size_t at = shown->result.text.find(options.stops[0]);
  ASSERT_NE(at, std::string::npos) << shown->result.text;
  const auto stopped = answer(*real.session, *real.tokenizer, prompt, options);
  ASSERT_TRUE(stopped.ok()) << stopped.error().text();
  EXPECT_EQ(stopped->result.reason, StopReason::kStopText);
  EXPECT_EQ(stopped->all(), shown->result.text.substr(0, at));
  EXPECT_EQ(stopped->result.text, stopped->all());
}

class PerplexityOnReal : public testing::TestWithParam<const char*> {};

// Both round activations to 8 bits, and the rounding alone moves a perplexity of 1,275 tokens by
// some tenths of a percent either way: hone's is held to the exact one (transformers in f32 on the
// dequantized weights), and must not be above llama.cpp's by more than half a percent.
TEST_P(PerplexityOnReal, WithinHalfAPercentOfExactAndNotBehindLlamaCpp) {
  const std::string folder = std::string(HONE_SOURCE_DIR) + "/tests/golden/perplexity/";
  const auto golden = read_file(folder + "perplexity.json");
  const auto text = read_file(folder + "text.txt");
  ASSERT_TRUE(golden.ok() && text.ok());
  const nlohmann::json expected = nlohmann::json::parse(*golden)[GetParam()];
  const std::string path = cached_model(expected["file"]);
  if (path.empty()) GTEST_SKIP() << expected["file"] << " is not in the cache: hone fetch";
  const Real real = open_real(path, 512);
  ASSERT_TRUE(real.tokenizer.has_value());
  std::vector<std::int64_t> seen;
  const auto found = engine::perplexity(*real.session, *real.tokenizer, *text, 512,
                                        [&](std::int64_t done, std::int64_t total) {
                                          EXPECT_EQ(total, 5);
                                          seen.push_back(done);
                                        });
  ASSERT_TRUE(found.ok()) << found.error().text();
  const double reference = expected["llama_cpp"]["512"]["perplexity"];
  std::printf("%s: perplexity %.4f, llama.cpp %.4f\n", GetParam(), found->perplexity, reference);
  const double exact = expected["transformers_f32"]["512"]["perplexity"];
  EXPECT_NEAR(found->perplexity, exact, 0.005 * exact);
  EXPECT_LE(found->perplexity, 1.005 * reference);
  EXPECT_EQ(found->chunks, 5);
  EXPECT_EQ(found->scored_tokens, 5 * (512 / 2 - 1));
  EXPECT_GT(found->standard_error, 0);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{1, 2, 3, 4, 5}));
}

INSTANTIATE_TEST_SUITE_P(All, PerplexityOnReal,
                         testing::Values("smollm2-135m-q4_1", "gemma-3-270m-q4_k_m"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace hone::testing_models
