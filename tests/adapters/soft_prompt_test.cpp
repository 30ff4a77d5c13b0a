// Soft prompts in a session: PEFT's logits, files that come back, lengths that are the text's, and
// caches that mix no plain prompt with one behind virtual tokens.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "engine/merge.h"
#include "support.h"

namespace hone::testing_adapters {
namespace {

using engine::Session;
using engine::TokenId;
using testing_models::all_logits;
using testing_models::golden_folder;
using testing_models::golden_tokens;

std::string golden_prompt(const std::string& name) {
  return std::string(HONE_SOURCE_DIR) + "/tests/golden/soft_prompt/" + name;
}

std::unique_ptr<Session> open(const std::string& model, std::int64_t context = 0) {
  engine::SessionOptions options = exact();
  options.context = context;
  options.budget = 4 * context;
  auto session = Session::open(model, options);
  EXPECT_TRUE(session.ok()) << session.error().text();
  return session ? *std::move(session) : nullptr;
}

std::vector<float> logits_of(Session& session, std::span<const TokenId> tokens) {
  const auto logits = all_logits(session, tokens);
  EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
  return logits ? *logits : std::vector<float>{};
}

Adapter random_prompt(const Session& session, std::int64_t tokens, std::uint64_t seed) {
  Adapter adapter;
  adapter.kind = AdapterKind::kPrompt;
  adapter.architecture = session.config().architecture;
  adapter.virtual_tokens = tokens;
  adapter.hidden = session.config().hidden;
  Random random(seed);
  for (std::int64_t i = 0; i < tokens * adapter.hidden; ++i) {
    adapter.prompt.push_back(random.normal());
  }
  return adapter;
}

class SoftPromptOn : public testing::TestWithParam<const char*> {};

TEST_P(SoftPromptOn, GivesPeftsLogits) {
  const std::string name = GetParam();
  const auto tokens = golden_tokens(name);
  const auto session = open(golden_folder(name));
  const auto adapter = engine::read_adapter(golden_prompt(name), session->source());
  ASSERT_TRUE(adapter.ok()) << adapter.error().text();
  EXPECT_EQ(adapter->kind, AdapterKind::kPrompt);
  const auto plain = logits_of(*session, tokens);
  ASSERT_TRUE(session->attach(*adapter).ok());
  const auto expected = read_floats(golden_prompt(name) + "/logits.bin");
  ASSERT_EQ(expected.size(), plain.size());
  const auto found = logits_of(*session, tokens);
  EXPECT_GT(largest_gap(plain, found), 1);
  double largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(double{value}));
  // Two f32 evaluations in different orders of sums: some thousand roundings.
  EXPECT_LE(largest_gap(found, expected), largest * 1e-4);
  // Token by token the same: each knows its place behind the virtual tokens.
  const engine::SequenceId id = session->begin();
  std::vector<float> stepped;
  for (const TokenId token : tokens) {
    const engine::Request request{id, std::span(&token, 1), engine::Wanted::kLast};
    const auto logits = session->step(std::span(&request, 1));
    ASSERT_TRUE(logits.ok());
    stepped.insert(stepped.end(), logits->begin(), logits->end());
  }
  EXPECT_LE(largest_gap(stepped, expected), largest * 1e-4);
  EXPECT_EQ(session->length(id), std::ssize(tokens));
}

INSTANTIATE_TEST_SUITE_P(All, SoftPromptOn, testing::Values("llama", "gemma3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(SoftPrompt, FilesComeBack) {
  const auto session = open(golden_folder("llama"));
  const Adapter prompt = random_prompt(*session, 7, 1);
  for (const char* name : {"prompt.gguf", "prompt_peft"}) {
    const Scratch scratch(name);
    std::filesystem::create_directories(scratch.path());
    const std::string path = scratch.path() + "/" + name;
    const Status written = engine::write_adapter(path, prompt, session->source());
    ASSERT_TRUE(written.ok()) << written.error().text();
    const auto back = engine::read_adapter(path, session->source());
    ASSERT_TRUE(back.ok()) << back.error().text();
    EXPECT_EQ(back->kind, AdapterKind::kPrompt);
    EXPECT_EQ(back->virtual_tokens, 7);
    EXPECT_EQ(back->prompt, prompt.prompt);
  }
}

TEST(SoftPrompt, ThatDoesNotFitIsRefused) {
  const auto session = open(golden_folder("llama"), 64);
  Adapter prompt = random_prompt(*session, 4, 1);
  const auto refused = [&](double strength = 1) {
    const Status status = session->attach(prompt, strength);
    return status.ok() ? "attached" : status.error().what;
  };
  EXPECT_NE(refused(0.5).find("as it was trained"), std::string::npos);
  prompt.prompt[3] = NAN;
  EXPECT_NE(refused().find("no number"), std::string::npos);
  prompt = random_prompt(*session, 64, 1);
  EXPECT_NE(refused().find("no room"), std::string::npos);
  prompt = random_prompt(*session, 4, 1);
  prompt.hidden = 32;
  prompt.virtual_tokens = 8;
  EXPECT_NE(refused().find("does not fit"), std::string::npos);
  prompt.prompt.pop_back();
  EXPECT_NE(refused().find("not whole"), std::string::npos);
  EXPECT_EQ(session->virtual_tokens(), 0);
  ThreadPool pool(1);
  const auto merged = engine::merge_adapter(session->source(), random_prompt(*session, 4, 1),
                                            "/dev/null", {}, pool);
  ASSERT_FALSE(merged.ok());
  EXPECT_NE(merged.error().what.find("cannot be merged"), std::string::npos);
}

// The context that is left, and going back to a place in the text.
TEST(SoftPrompt, LengthsAreThoseOfTheText) {
  const auto session = open(golden_folder("llama"), 64);
  const Adapter prompt = random_prompt(*session, 40, 3);  // more than a page
  std::vector<TokenId> text(24);
  std::iota(text.begin(), text.end(), 5);
  ASSERT_TRUE(session->attach(prompt).ok());
  EXPECT_EQ(session->context(), 24);
  const auto whole = logits_of(*session, text);
  const engine::SequenceId id = session->begin();
  ASSERT_TRUE(session->prefill(id, std::span(text).first(10)).ok());
  EXPECT_EQ(session->length(id), 10);
  for (const std::int64_t keep : {10, 4, 0}) {
    ASSERT_TRUE(session->truncate(id, keep).ok());
    EXPECT_EQ(session->length(id), keep);
    const auto logits = session->prefill(id, std::span(text).subspan(keep));
    ASSERT_TRUE(logits.ok()) << logits.error().text();
    const auto last = std::span(whole).last(logits->size());
    EXPECT_LE(largest_gap(*logits, last), 1e-4) << keep;
    EXPECT_EQ(session->length(id), 24);
    const Status longer = session->prefill(id, std::span(text).first(1)).ok()
                              ? Status{}
                              : Status{Error{ErrorCode::kOutOfRange, "", "", "", "", ""}};
    EXPECT_FALSE(longer.ok());
  }
  EXPECT_FALSE(session->truncate(id, 25).ok());
}

// Beginnings are shared among prompts behind the same virtual tokens, and with no others; sequences
// that hold tokens go on as they began.
TEST(SoftPrompt, MixesWithNoPlainPrompt) {
  const auto session = open(golden_folder("llama"), 128);
  std::vector<TokenId> text(60);
  std::iota(text.begin(), text.end(), 1);
  const auto last_of = [&](std::int64_t& reused) {
    const engine::SequenceId id = session->begin();
    reused = session->reuse(id, text);
    const auto logits =
        session->prefill(id, std::span(text).subspan(static_cast<std::size_t>(reused)));
    EXPECT_TRUE(logits.ok());
    std::vector<float> out(logits->begin(), logits->end());
    session->end(id);
    return out;
  };
  std::int64_t reused = 0;
  const auto plain = last_of(reused);
  EXPECT_EQ(reused, 0);
  EXPECT_LE(largest_gap(last_of(reused), plain), 1e-4);
  EXPECT_EQ(reused, 32);
  const engine::SequenceId old = session->begin();
  ASSERT_TRUE(session->prefill(old, std::span(text).first(3)).ok());

  const Adapter first = random_prompt(*session, 5, 1);
  const Adapter second = random_prompt(*session, 40, 2);
  std::vector<std::vector<float>> found;
  for (const Adapter* each : {&first, &second}) {
    ASSERT_TRUE(session->attach(*each).ok());
    found.push_back(last_of(reused));
    EXPECT_EQ(reused, 0);
    EXPECT_GT(largest_gap(found.back(), plain), 0.5);
    EXPECT_LE(largest_gap(last_of(reused), found.back()), 1e-4);
    // Whole pages of 32, the virtual tokens among them.
    EXPECT_EQ(reused, (each->virtual_tokens + 59) / 32 * 32 - each->virtual_tokens);
  }
  EXPECT_GT(largest_gap(found[0], found[1]), 0.5);
  // Three tokens without virtual ones in front stay that: more of the same text is the plain text.
  const auto rest = session->prefill(old, std::span(text).subspan(3));
  ASSERT_TRUE(rest.ok());
  EXPECT_LE(largest_gap(*rest, plain), 1e-4);
  EXPECT_EQ(session->length(old), 60);
  session->detach();
  EXPECT_LE(largest_gap(last_of(reused), plain), 1e-4);
  EXPECT_EQ(reused, 0);
}

// Several sequences in a step, some behind virtual tokens that others do not lack any more.
TEST(SoftPrompt, SequencesStepTogether) {
  const auto session = open(golden_folder("gemma3"), 64);
  const Adapter prompt = random_prompt(*session, 6, 9);
  ASSERT_TRUE(session->attach(prompt).ok());
  const std::vector<TokenId> text = {5, 9, 11, 2, 7};
  const auto alone = logits_of(*session, text);
  const engine::SequenceId first = session->begin();
  const engine::SequenceId second = session->begin();
  ASSERT_TRUE(session->prefill(first, std::span(text).first(4)).ok());
  const engine::Request requests[] = {{first, std::span(text).subspan(4), engine::Wanted::kAll},
                                      {second, text, engine::Wanted::kAll}};
  const auto logits = session->step(requests);
  ASSERT_TRUE(logits.ok());
  const std::size_t vocabulary = alone.size() / text.size();
  ASSERT_EQ(logits->size(), 6 * vocabulary);
  EXPECT_LE(largest_gap(logits->first(vocabulary), std::span(alone).last(vocabulary)), 1e-4);
  EXPECT_LE(largest_gap(logits->subspan(vocabulary), alone), 1e-4);
}

}  // namespace
}  // namespace hone::testing_adapters
