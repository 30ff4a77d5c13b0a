// Evaluation: scores of choices against whole sequences and against transformers, answers against
// plain generation, whatever runs beside them.
// SPDX-License-Identifier: Apache-2.0
#include "tune/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../support/models.h"
#include "engine/generate.h"

namespace hone::testing_models {
namespace {

using engine::Session;
using engine::SessionOptions;
using engine::TokenId;
using formats::Tokenizer;
using tune::EvalExample;
using tune::EvalOptions;
using tune::EvalReport;

// Letters, a space and some merged ones, in GPT-2's byte alphabet (Ġ is the space); the rest of
// the vocabulary is never encoded.
Result<Tokenizer> letters(std::int64_t size, std::string chat_template = "") {
  formats::Vocabulary vocabulary;
  const auto add = [&](std::string_view text, formats::TokenType type) {
    vocabulary.tokens.push_back(text);
    vocabulary.types.push_back(type);
    return static_cast<TokenId>(vocabulary.tokens.size()) - 1;
  };
  vocabulary.bos = add("<s>", formats::TokenType::kControl);
  vocabulary.eos = add("</s>", formats::TokenType::kControl);
  vocabulary.end_of_generation = {vocabulary.eos};
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    add(std::string(1, letter), formats::TokenType::kNormal);
  }
  add("\xC4\xA0", formats::TokenType::kNormal);
  const std::pair<std::string, std::string> merges[] = {{"t", "h"}, {"th", "e"}, {"\xC4\xA0", "a"}};
  for (const auto& [left, right] : merges) {
    add(left + right, formats::TokenType::kNormal);
    vocabulary.merges.push_back(left + right);
    vocabulary.merge_splits.push_back(static_cast<std::uint32_t>(left.size()));
  }
  while (static_cast<std::int64_t>(vocabulary.tokens.size()) < size) {
    add(fmt::format("x{}", vocabulary.tokens.size()), formats::TokenType::kNormal);
  }
  vocabulary.chat_template = std::move(chat_template);
  return Tokenizer::create(std::move(vocabulary));
}

EvalExample choice(std::string prompt, std::vector<std::string> choices, std::size_t answer = 0) {
  EvalExample example;
  example.prompt = std::move(prompt);
  example.choices = std::move(choices);
  example.answer = answer;
  return example;
}

EvalExample question(std::string prompt, std::string answer) {
  EvalExample example;
  example.prompt = std::move(prompt);
  example.answers = {std::move(answer)};
  return example;
}

class EvaluateOnTiny : public testing::Test {
 protected:
  void SetUp() override {
    options_.raw = true;
    open({});
  }
  void open(SessionOptions how) {
    how.threads = 2;
    how.compile.lower.cache = kernels::CacheKind::kF32;
    auto session = Session::open(golden_folder("llama"), how);
    ASSERT_TRUE(session.ok()) << session.error().text();
    session_ = *std::move(session);
    auto tokenizer = letters(session_->config().vocabulary, chat_template_);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().text();
    tokenizer_.emplace(*std::move(tokenizer));
  }
  EvalReport run(std::span<const EvalExample> examples) {
    auto report = tune::evaluate(*session_, *tokenizer_, examples, options_);
    EXPECT_TRUE(report.ok()) << (report.ok() ? "" : report.error().text());
    return report ? *std::move(report) : EvalReport();
  }
  // The sum over tokens[from …], by one step over the whole sequence.
  double whole(std::span<const TokenId> tokens, std::size_t from) {
    const auto logits = all_logits(*session_, tokens);
    EXPECT_TRUE(logits.ok());
    const auto width = static_cast<std::size_t>(session_->config().vocabulary);
    double sum = 0;
    for (std::size_t i = from; i < tokens.size(); ++i) {
      sum += engine::log_probability(std::span(*logits).subspan((i - 1) * width, width), tokens[i]);
    }
    return sum;
  }
  // A step of another shape may add in another order: some roundings of f32 for each token.
  static double tolerance(double sum, std::int64_t tokens) {
    return 1e-5 * (std::abs(sum) + static_cast<double>(tokens));
  }

  std::string chat_template_;
  EvalOptions options_;
  std::unique_ptr<Session> session_;
  std::optional<Tokenizer> tokenizer_;
};

TEST_F(EvaluateOnTiny, ScoresAreThoseOfWholeSequences) {
  std::vector<EvalExample> examples = {
      choice("cab", {" dad", " a", " bees fly"}, 1),
      choice("what comes next is the word that nobody has said before", {"x", " yz"}),
      choice("ab ", {"c", "defg"}),
      choice("once more", {" a cab", " the end of it", " t", " he"}, 3),
  };
  const EvalReport report = run(examples);
  ASSERT_EQ(report.outcomes.size(), examples.size());
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const auto& outcome = report.outcomes[i];
    ASSERT_EQ(outcome.example, i);
    ASSERT_EQ(outcome.scores.size(), examples[i].choices.size());
    const std::string& prompt = examples[i].prompt;
    const std::size_t shared = tokenizer_->encode(prompt).size();
    double best = -1e300;
    std::size_t best_at = 0;
    for (std::size_t c = 0; c < examples[i].choices.size(); ++c) {
      const std::string& text = examples[i].choices[c];
      const bool bare = text[0] != ' ' && prompt.back() != ' ';
      const auto tokens = tokenizer_->encode(prompt + (bare ? " " : "") + text);
      const double expected = whole(tokens, shared);
      const auto& score = outcome.scores[c];
      EXPECT_EQ(score.tokens, static_cast<std::int64_t>(tokens.size() - shared)) << prompt << text;
      EXPECT_EQ(score.characters, static_cast<std::int64_t>(text.size()));
      EXPECT_NEAR(score.log_probability, expected, tolerance(expected, score.tokens))
          << prompt << text;
      if (expected > best) {
        best = expected;
        best_at = c;
      }
    }
    EXPECT_EQ(outcome.best, best_at);
    EXPECT_EQ(outcome.right, best_at == examples[i].answer);
  }
  EXPECT_EQ(report.by_sum.total, 4);
  EXPECT_NEAR(report.chance, (1.0 / 3 + 1.0 / 2 + 1.0 / 2 + 1.0 / 4) / 4, 1e-12);
}

// "t" and "he" are one token: the whole word is the answer, for all choices.
TEST_F(EvaluateOnTiny, ATokenThatSpansTheBorderBelongsToTheAnswers) {
  options_.delimiter = "";
  const EvalExample examples[] = {choice("cat", {"he", "o"}), choice("t", {"h", "x"})};
  const EvalReport report = run(examples);
  ASSERT_EQ(report.outcomes.size(), 2u);
  const auto& first = report.outcomes[0].scores;
  EXPECT_EQ(first[0].tokens, 1);  // "the"
  EXPECT_EQ(first[1].tokens, 2);  // "t", "o"
  const auto the = tokenizer_->encode("cathe");
  ASSERT_EQ(the.size(), 3u);
  EXPECT_NEAR(first[0].log_probability, whole(the, 2), tolerance(10, 1));
  // Nothing is left of the prompt: the beginning of a sequence takes its place.
  std::vector<TokenId> th = {tokenizer_->bos()};
  tokenizer_->encode("th", {}, th);
  EXPECT_NEAR(report.outcomes[1].scores[0].log_probability, whole(th, 1), tolerance(10, 1));
}

TEST_F(EvaluateOnTiny, ACompanyOfExamplesChangesNothing) {
  std::vector<EvalExample> examples;
  for (int i = 0; i < 40; ++i) {
    const std::string prompt(static_cast<std::size_t>(1 + i * 7 % 60),
                             static_cast<char>('a' + i % 26));
    examples.push_back(
        choice(prompt, {" dad and mum", " c", " bees"}, static_cast<std::size_t>(i) % 3));
  }
  const EvalReport together = run(examples);
  ASSERT_EQ(together.outcomes.size(), examples.size());
  std::int64_t right = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const EvalReport alone = run(std::span(&examples[i], 1));
    ASSERT_EQ(alone.outcomes.size(), 1u);
    for (std::size_t c = 0; c < 3; ++c) {
      const auto& mine = together.outcomes[i].scores[c];
      const auto& theirs = alone.outcomes[0].scores[c];
      EXPECT_EQ(mine.tokens, theirs.tokens);
      EXPECT_NEAR(mine.log_probability, theirs.log_probability,
                  tolerance(theirs.log_probability, theirs.tokens));
    }
    right += alone.outcomes[0].right ? 1 : 0;
  }
  EXPECT_EQ(together.by_sum.count, right);
}

TEST_F(EvaluateOnTiny, LongPromptsAndSmallSteps) {
  SessionOptions how;
  how.batch = 8;
  const EvalExample examples[] = {choice(std::string(70, 'c'), {" dad", " bees and more bees"}),
                                  choice("ab", {" dad", std::string(50, 'x')})};
  const EvalReport large = run(examples);
  open(how);
  const EvalReport small = run(examples);
  ASSERT_EQ(small.outcomes.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    for (std::size_t c = 0; c < 2; ++c) {
      const auto& score = large.outcomes[i].scores[c];
      EXPECT_NEAR(small.outcomes[i].scores[c].log_probability, score.log_probability,
                  tolerance(score.log_probability, score.tokens));
    }
  }
}

TEST_F(EvaluateOnTiny, AnswersAreThoseOfPlainGeneration) {
  std::vector<EvalExample> examples;
  std::vector<std::string> expected;
  options_.most_tokens = 12;
  options_.stops = {"x1"};
  engine::GenerateOptions plain;
  plain.sampling.temperature = 0;
  plain.most_tokens = options_.most_tokens;
  plain.stops = options_.stops;
  std::int64_t tokens = 0;
  for (int i = 0; i < 24; ++i) {
    const std::string prompt(static_cast<std::size_t>(1 + i * 5 % 40),
                             static_cast<char>('a' + i % 26));
    const engine::SequenceId sequence = session_->begin();
    const auto said =
        engine::generate(*session_, *tokenizer_, sequence, tokenizer_->encode(prompt), plain);
    session_->end(sequence);
    ASSERT_TRUE(said.ok()) << said.error().text();
    expected.push_back(said->text);
    tokens += static_cast<std::int64_t>(said->tokens.size());
    examples.push_back(question(prompt, i % 2 == 0 ? said->text : "something else"));
  }
  const EvalReport report = run(examples);
  ASSERT_EQ(report.outcomes.size(), examples.size());
  for (std::size_t i = 0; i < examples.size(); ++i) {
    EXPECT_EQ(report.outcomes[i].said, expected[i]) << i;
    EXPECT_EQ(report.outcomes[i].right, i % 2 == 0 || expected[i] == "something else") << i;
  }
  EXPECT_EQ(report.exact.count, 12);
  EXPECT_EQ(report.exact.total, 24);
  EXPECT_EQ(report.generated_tokens, tokens);
}

TEST_F(EvaluateOnTiny, TheContextEndsAnAnswer) {
  SessionOptions how;
  how.context = 16;
  open(how);
  options_.most_tokens = 100;
  const EvalExample examples[] = {question("abcdefgh", "x")};
  const EvalReport report = run(examples);
  ASSERT_EQ(report.outcomes.size(), 1u);
  EXPECT_LE(report.outcomes[0].tokens, 9);
}

TEST_F(EvaluateOnTiny, ErrorsComeBeforeWork) {
  SessionOptions how;
  how.context = 16;
  open(how);
  std::int64_t done = 0;
  options_.progress = [&](std::int64_t count, std::int64_t) { done = count; };
  std::vector<EvalExample> examples = {choice("ab", {" c", " d"}),
                                       choice("abcdefghijklmnop", {" c", " ab"})};
  examples[1].line = 7;
  const auto long_one = tune::evaluate(*session_, *tokenizer_, examples, options_);
  ASSERT_FALSE(long_one.ok());
  EXPECT_EQ(long_one.error().code, ErrorCode::kOutOfRange);
  EXPECT_NE(long_one.error().where.find("line 7"), std::string::npos);
  EXPECT_EQ(done, 0);
  // One less fits: the last token of a choice is never fed.
  examples[1] = choice("abcdefghijklmno", {" c", " a"});
  EXPECT_TRUE(tune::evaluate(*session_, *tokenizer_, examples, options_).ok());
  EXPECT_EQ(done, 2);

  options_.match.extract = "(";
  EXPECT_EQ(tune::evaluate(*session_, *tokenizer_, examples, options_).error().where, "--extract");
  options_.match.extract = "";
  options_.raw = false;
  const auto no_template = tune::evaluate(*session_, *tokenizer_, examples, options_);
  ASSERT_FALSE(no_template.ok());
  EXPECT_NE(no_template.error().advice.find("--raw"), std::string::npos);
}

TEST_F(EvaluateOnTiny, TheTemplateIsTheModelsOwn) {
  chat_template_ =
      "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
      "{% if add_generation_prompt %}a {% endif %}";
  open({});
  options_.raw = false;
  const EvalExample examples[] = {choice("cab", {" dad", "bees"})};
  const EvalReport chat = run(examples);
  options_.raw = true;
  options_.delimiter = "";
  const EvalExample as_text[] = {choice("user cab a ", {"dad", "bees"})};
  const EvalReport raw = run(as_text);
  ASSERT_EQ(chat.outcomes.size(), 1u);
  for (std::size_t c = 0; c < 2; ++c) {
    EXPECT_EQ(chat.outcomes[0].scores[c].log_probability,
              raw.outcomes[0].scores[c].log_probability);
  }
  options_.raw = false;
  options_.system = "be kind";
  EXPECT_NE(run(examples).outcomes[0].scores[0].log_probability,
            chat.outcomes[0].scores[0].log_probability);
}

TEST_F(EvaluateOnTiny, InterruptedWorkIsReported) {
  std::vector<EvalExample> examples;
  for (int i = 0; i < 64; ++i) examples.push_back(choice("ab", {" c", " d"}));
  int asked = 0;
  options_.interrupted = [&] { return ++asked > 2; };
  const EvalReport report = run(examples);
  EXPECT_FALSE(report.complete);
  EXPECT_GT(report.outcomes.size(), 0u);
  EXPECT_LT(report.outcomes.size(), 64u);
  EXPECT_EQ(report.by_sum.total, static_cast<std::int64_t>(report.outcomes.size()));
}

// Wilson's interval, values of other implementations.
TEST(Proportion, HasWilsonsInterval) {
  const auto near = [](std::int64_t count, std::int64_t total, double low, double high) {
    const tune::Proportion found = tune::proportion(count, total);
    EXPECT_NEAR(found.low, low, 5e-5) << count << " of " << total;
    EXPECT_NEAR(found.high, high, 5e-5) << count << " of " << total;
  };
  near(0, 10, 0, 0.2775);
  near(10, 10, 0.7225, 1);
  near(5, 10, 0.2366, 0.7634);
  near(81, 263, 0.2553, 0.3662);
  EXPECT_EQ(tune::proportion(81, 263).share, 81.0 / 263);
  EXPECT_EQ(tune::proportion(0, 0).high, 1);
}

TEST(EvaluateOnReal, ChoicesScoreAsInTransformers) {
  const std::string folder = std::string(HONE_SOURCE_DIR) + "/tests/golden/eval/";
  const auto text = read_file(folder + "eval.json");
  ASSERT_TRUE(text.ok()) << text.error().text();
  const auto golden = nlohmann::json::parse(*text);
  const std::string path = cached_model(golden["file"]);
  if (path.empty()) GTEST_SKIP() << golden["file"] << " is not in the cache: hone fetch smollm2";
  SessionOptions how;
  how.compile.arithmetic = engine::Arithmetic::kFloat;
  how.compile.lower.cache = kernels::CacheKind::kF32;
  how.context = 512;
  auto session = Session::open(path, how);
  ASSERT_TRUE(session.ok()) << session.error().text();
  auto vocabulary = (*session)->source().vocabulary();
  ASSERT_TRUE(vocabulary.ok());
  const auto tokenizer = Tokenizer::create(*std::move(vocabulary));
  ASSERT_TRUE(tokenizer.ok());
  std::vector<EvalExample> examples;
  for (const auto& one : golden["questions"]) {
    examples.push_back(choice(one["prompt"], one["choices"]));
  }
  double worst = 0;
  for (const char* kind : {"raw", "chat"}) {
    EvalOptions options;
    options.raw = std::string_view(kind) == "raw";
    if (options.raw) options.delimiter = "";
    const auto report = tune::evaluate(**session, *tokenizer, examples, options);
    ASSERT_TRUE(report.ok()) << report.error().text();
    for (std::size_t i = 0; i < examples.size(); ++i) {
      const auto& expected = golden["questions"][i][kind];
      for (std::size_t c = 0; c < examples[i].choices.size(); ++c) {
        const auto& score = report->outcomes[i].scores[c];
        const double reference = expected["log_probability"][c];
        EXPECT_EQ(score.tokens, expected["tokens"][c]) << examples[i].prompt;
        const double error = std::abs(score.log_probability - reference);
        worst = std::max(worst, error / static_cast<double>(score.tokens));
        // 30 layers of f32 in another order: 2e-5 nats a token with AVX2 (2026-11-25), ten times
        // that for other instruction sets. A dropped or doubled token is off by nats.
        EXPECT_LE(error, 2e-4 * static_cast<double>(score.tokens))
            << kind << ": " << examples[i].prompt << examples[i].choices[c];
      }
    }
  }
  std::printf("largest difference from transformers: %.2g nats a token\n", worst);
}

}  // namespace
}  // namespace hone::testing_models
