// Many sequences at once: what each gives alone, bit for bit; prefixes shared, caches filled,
// sequences cut and continued.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "../support/models.h"
#include "engine/sampler.h"

namespace hone::testing_models {
namespace {

using engine::Request;
using engine::Sampler;
using engine::SamplingOptions;
using engine::SequenceId;
using engine::Session;
using engine::SessionOptions;
using engine::TokenId;
using engine::Wanted;

// A prompt of its own for each seed.
std::vector<TokenId> prompt_of(std::uint64_t seed, std::size_t size, std::int64_t vocabulary) {
  Random random(seed + 1000);
  std::vector<TokenId> out;
  for (std::size_t i = 0; i < size; ++i) {
    out.push_back(static_cast<TokenId>(random.below(static_cast<std::uint32_t>(vocabulary))));
  }
  return out;
}

std::unique_ptr<Session> open(const std::string& model, SessionOptions options) {
  options.threads = 2;
  auto session = Session::open(model, options);
  EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
  return session ? *std::move(session) : nullptr;
}

// Tokens and logits of one sequence, step by step.
struct Trace {
  std::vector<TokenId> tokens;
  std::vector<std::vector<float>> logits;
};

Trace alone(Session& session, std::uint64_t seed, std::span<const TokenId> prompt, int steps,
            const SamplingOptions& sampling) {
  Trace trace;
  const SequenceId sequence = session.begin();
  Sampler sampler(sampling, seed);
  std::vector<TokenId> recent(prompt.begin(), prompt.end());
  auto logits = session.prefill(sequence, prompt);
  for (int step = 0; step < steps && logits.ok(); ++step) {
    trace.logits.emplace_back(logits->begin(), logits->end());
    trace.tokens.push_back(sampler.sample(*logits, recent));
    recent.push_back(trace.tokens.back());
    const Request request{sequence, std::span(&trace.tokens.back(), 1), Wanted::kLast};
    logits = session.step(std::span(&request, 1));
  }
  EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
  session.end(sequence);
  return trace;
}

// All prompts in one ragged step, then all sequences a token a step; each ends at its own length.
std::vector<Trace> together(Session& session, const std::vector<std::vector<TokenId>>& prompts,
                            const std::vector<int>& steps, const SamplingOptions& sampling) {
  const auto vocabulary = static_cast<std::size_t>(session.config().vocabulary);
  std::vector<Trace> traces(prompts.size());
  std::vector<SequenceId> ids;
  std::vector<Sampler> samplers;
  std::vector<std::vector<TokenId>> recent = prompts;
  for (std::size_t s = 0; s < prompts.size(); ++s) {
    ids.push_back(session.begin());
    samplers.emplace_back(sampling, s);
  }
  std::vector<std::size_t> live(prompts.size());
  for (std::size_t s = 0; s < live.size(); ++s) live[s] = s;
  for (int step = 0; !live.empty(); ++step) {
    std::vector<Request> requests;
    for (const std::size_t s : live) {
      const std::span<const TokenId> next =
          step == 0 ? std::span<const TokenId>(prompts[s]) : std::span(&traces[s].tokens.back(), 1);
      requests.push_back({ids[s], next, Wanted::kLast});
    }
    const auto logits = session.step(requests);
    EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
    if (!logits) return traces;
    std::vector<std::size_t> still;
    for (std::size_t i = 0; i < live.size(); ++i) {
      const std::size_t s = live[i];
      const auto row = logits->subspan(i * vocabulary, vocabulary);
      traces[s].logits.emplace_back(row.begin(), row.end());
      traces[s].tokens.push_back(samplers[s].sample(row, recent[s]));
      recent[s].push_back(traces[s].tokens.back());
      if (step + 1 < steps[s]) still.push_back(s);
    }
    live = still;
  }
  for (const SequenceId id : ids) session.end(id);
  return traces;
}

void expect_batch_equals_alone(const std::string& model, std::size_t longest, int most_steps,
                               bool sampled) {
  SessionOptions options;
  options.context = 128;
  options.budget = 8 * 128;
  options.reuse_prefixes = false;
  const auto session = open(model, options);
  ASSERT_NE(session, nullptr);
  SamplingOptions sampling;
  sampling.temperature = sampled ? 0.9f : 0.0f;
  sampling.seed = 5;
  std::vector<std::vector<TokenId>> prompts;
  std::vector<int> steps;
  for (std::size_t s = 0; s < 8; ++s) {
    // From one token to the longest, in no order.
    const std::size_t size = 1 + (s * 5 % 8) * (longest - 1) / 7;
    prompts.push_back(prompt_of(s, size, session->config().vocabulary));
    steps.push_back(1 + static_cast<int>((s * 3 + 2) % 8) * (most_steps - 1) / 7);
  }
  const auto found = together(*session, prompts, steps, sampling);
  for (std::size_t s = 0; s < prompts.size(); ++s) {
    const Trace expected = alone(*session, s, prompts[s], steps[s], sampling);
    EXPECT_EQ(found[s].tokens, expected.tokens) << model << " sequence " << s;
    ASSERT_EQ(found[s].logits.size(), expected.logits.size());
    for (std::size_t i = 0; i < expected.logits.size(); ++i) {
      ASSERT_EQ(found[s].logits[i], expected.logits[i])
          << model << " sequence " << s << " step " << i;
    }
  }
}

TEST(Batch, EightRaggedSequencesAsEachAlone) {
  for (const char* name : {"llama", "gemma3", "qwen2", "qwen3"}) {
    for (const bool sampled : {false, true}) {
      expect_batch_equals_alone(golden_folder(name), 61, 24, sampled);
      expect_batch_equals_alone(quantized_copy(name, DType::kQ4_1), 61, 24, sampled);
    }
  }
}

TEST(Batch, EightRaggedSequencesAsEachAloneOnRealModels) {
  bool any = false;
  for (const char* file : {"smollm2-135m-instruct-q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"}) {
    const std::string path = cached_model(file);
    if (path.empty()) continue;
    any = true;
    for (const bool sampled : {false, true}) expect_batch_equals_alone(path, 40, 6, sampled);
  }
  if (!any) GTEST_SKIP() << "no real model is in the cache";
}

std::vector<float> copy_of(const Result<std::span<const float>>& logits) {
  EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
  return logits ? std::vector<float>(logits->begin(), logits->end()) : std::vector<float>{};
}

// Reuses what is filed and feeds the rest; how much was reused, and the logits.
std::pair<std::int64_t, std::vector<float>> ask(Session& session, std::span<const TokenId> prompt,
                                                SequenceId* kept = nullptr) {
  const SequenceId id = session.begin();
  const std::int64_t reused = session.reuse(id, prompt);
  auto logits = copy_of(session.prefill(id, prompt.subspan(static_cast<std::size_t>(reused))));
  if (kept != nullptr) {
    *kept = id;
  } else {
    session.end(id);
  }
  return {reused, std::move(logits)};
}

TEST(Prefix, ReuseGivesTheSameLogits) {
  for (const char* name : {"llama", "gemma3"}) {
    SessionOptions options;
    const auto session = open(quantized_copy(name, DType::kQ8_0), options);
    options.reuse_prefixes = false;
    const auto fresh = open(quantized_copy(name, DType::kQ8_0), options);
    ASSERT_TRUE(session != nullptr && fresh != nullptr);
    const auto common = prompt_of(1, 70, session->config().vocabulary);
    auto first = common, second = common;
    for (const TokenId token : {5, 6, 7}) first.push_back(token);
    for (const TokenId token : {9, 8}) second.push_back(token);
    const auto expected_first = ask(*fresh, first);
    const auto expected_second = ask(*fresh, second);
    EXPECT_EQ(expected_second.first, 0);
    SequenceId held = 0;
    EXPECT_EQ(ask(*session, first, &held), expected_first);
    // 70 common tokens are two full pages of 32; the same whether their maker still runs or not.
    EXPECT_EQ(ask(*session, second), std::pair(std::int64_t{64}, expected_second.second));
    session->end(held);
    EXPECT_EQ(ask(*session, second), std::pair(std::int64_t{64}, expected_second.second));
    // The last token is always evaluated, whole pages or not.
    const auto exact = std::span(common).first(64);
    EXPECT_EQ(ask(*session, exact), std::pair(std::int64_t{32}, ask(*fresh, exact).second));
    // A different first token shares nothing.
    auto other = first;
    other[0] = (other[0] + 1) % static_cast<TokenId>(session->config().vocabulary);
    EXPECT_EQ(ask(*session, other).first, 0);
    // Nothing is left held.
    EXPECT_EQ(session->cache().free_pages(), session->cache().page_count());
  }
}

TEST(Prefix, SurvivesEviction) {
  SessionOptions options;
  options.context = 128;
  options.budget = 128;  // four pages
  const auto session = open(golden_folder("llama"), options);
  options.reuse_prefixes = false;
  const auto fresh = open(golden_folder("llama"), options);
  ASSERT_TRUE(session != nullptr && fresh != nullptr);
  std::int64_t reused = 0;
  for (int round = 0; round < 40; ++round) {
    const auto prompt =
        prompt_of(static_cast<std::uint64_t>(round * 7 % 3),
                  static_cast<std::size_t>(33 + round * 13 % 80), session->config().vocabulary);
    const auto found = ask(*session, prompt);
    ASSERT_EQ(found.second, ask(*fresh, prompt).second) << "round " << round;
    reused += found.first;
    ASSERT_EQ(session->cache().free_pages(), 4);
  }
  EXPECT_GT(reused, 0) << "nothing was ever found again";
}

TEST(Prefix, SharedPagesAreNotWrittenByOthers) {
  SessionOptions options;
  options.budget = 256;
  const auto session = open(golden_folder("llama"), options);
  ASSERT_NE(session, nullptr);
  const auto prompt = prompt_of(3, 65, session->config().vocabulary);
  SequenceId a = 0, b = 0;
  const auto expected = ask(*session, prompt, &a).second;
  EXPECT_EQ(ask(*session, prompt, &b).first, 64);
  // b goes back into a page that a holds too, and writes something else there.
  ASSERT_TRUE(session->truncate(b, 40).ok());
  const std::vector<TokenId> other = prompt_of(9, 30, session->config().vocabulary);
  (void)copy_of(session->prefill(b, other));
  // a has not noticed: its last token evaluated again gives what it gave.
  ASSERT_TRUE(session->truncate(a, 64).ok());
  EXPECT_EQ(copy_of(session->prefill(a, std::span(prompt).last(1))), expected);
  // And who comes later finds the right pages.
  EXPECT_EQ(ask(*session, prompt).second, expected);
}

TEST(Cache, FullIsAnErrorThatChangesNothing) {
  SessionOptions options;
  options.context = 128;
  options.budget = 128;
  options.reuse_prefixes = false;
  const auto session = open(golden_folder("llama"), options);
  ASSERT_NE(session, nullptr);
  const auto vocabulary = session->config().vocabulary;
  const auto prompt = prompt_of(1, 40, vocabulary);
  const SequenceId a = session->begin();  // two pages of four
  const SequenceId b = session->begin();
  const auto expected = copy_of(session->prefill(a, prompt));
  const auto large = prompt_of(2, 65, vocabulary);
  const auto small = prompt_of(2, 60, vocabulary);
  EXPECT_EQ(session->cache().free_pages(), 2);
  const Request requests[] = {{a, std::span(large).first(30), Wanted::kLast},
                              {b, large, Wanted::kLast}};
  for (int i = 0; i < 3; ++i) {
    const auto full = session->step(requests);
    ASSERT_FALSE(full.ok());
    EXPECT_EQ(full.error().code, ErrorCode::kOutOfMemory);
    EXPECT_FALSE(full.error().advice.empty());
    EXPECT_EQ(session->length(a), 40);
    EXPECT_EQ(session->length(b), 0);
    EXPECT_EQ(session->cache().free_pages(), 2) << "a failed step keeps pages";
  }
  // Both are usable: what fits runs, and gives what it would have given.
  const auto b_logits = copy_of(session->prefill(b, small));
  ASSERT_TRUE(session->truncate(a, 39).ok());
  EXPECT_EQ(copy_of(session->prefill(a, std::span(prompt).last(1))), expected);
  session->end(a);
  session->end(b);
  EXPECT_EQ(session->cache().free_pages(), session->cache().page_count());
  const SequenceId c = session->begin();
  EXPECT_EQ(copy_of(session->prefill(c, small)), b_logits);
}

TEST(Cache, TruncateThatFindsNoPageChangesNothing) {
  SessionOptions options;
  options.context = 128;
  options.budget = 128;
  const auto session = open(golden_folder("llama"), options);
  ASSERT_NE(session, nullptr);
  const auto prompt = prompt_of(1, 65, session->config().vocabulary);
  SequenceId a = 0, b = 0;
  (void)ask(*session, prompt, &a);  // pages 1, 2 filed, 3 its own
  (void)ask(*session, prompt, &b);  // shares 1 and 2, 4 its own
  EXPECT_EQ(session->cache().free_pages(), 0);
  const SequenceId c = session->begin();
  EXPECT_EQ(session->reuse(c, prompt), 64);
  // c would need a copy of page 2, and there is none to be had.
  const Status cut = session->truncate(c, 40);
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(session->length(c), 64) << "an error leaves the sequence as it was";
}

TEST(Sequence, TruncateAndContinueIsAsFresh) {
  for (const bool reuse : {false, true}) {
    SessionOptions options;
    options.reuse_prefixes = reuse;
    options.budget = 256;  // two sequences at once
    const auto session = open(quantized_copy("gemma3", DType::kQ4_1), options);
    ASSERT_NE(session, nullptr);
    const auto vocabulary = session->config().vocabulary;
    const auto first = prompt_of(1, 90, vocabulary);
    const auto second = prompt_of(2, 20, vocabulary);
    for (const std::int64_t keep :
         {std::int64_t{0}, std::int64_t{1}, std::int64_t{31}, std::int64_t{32}, std::int64_t{33},
          std::int64_t{64}, std::int64_t{89}, std::int64_t{90}}) {
      const SequenceId cut = session->begin();
      (void)copy_of(session->prefill(cut, first));
      ASSERT_TRUE(session->truncate(cut, keep).ok());
      EXPECT_EQ(session->length(cut), keep);
      const auto found = copy_of(session->prefill(cut, second));
      const SequenceId fresh = session->begin();
      std::vector<TokenId> whole(first.begin(), first.begin() + keep);
      whole.insert(whole.end(), second.begin(), second.end());
      EXPECT_EQ(found, copy_of(session->prefill(fresh, whole))) << "kept " << keep;
      session->end(cut);
      session->end(fresh);
    }
    EXPECT_EQ(session->cache().free_pages(), session->cache().page_count());
    const SequenceId id = session->begin();
    EXPECT_FALSE(session->truncate(id, 1).ok());
    EXPECT_FALSE(session->truncate(id, -1).ok());
    EXPECT_FALSE(session->truncate(999, 0).ok());
  }
}

TEST(Sequence, BadRequestsAreErrors) {
  SessionOptions options;
  options.context = 48;
  const auto session = open(golden_folder("llama"), options);
  ASSERT_NE(session, nullptr);
  const SequenceId id = session->begin();
  const auto code_of = [&](std::span<const Request> requests) {
    const auto result = session->step(requests);
    EXPECT_FALSE(result.ok());
    return result.ok() ? ErrorCode::kInternal : result.error().code;
  };
  const std::vector<TokenId> one = {1};
  const std::vector<TokenId> none;
  EXPECT_EQ(code_of({}), ErrorCode::kInvalidArgument);
  const Request unknown{999, one, Wanted::kLast};
  EXPECT_EQ(code_of(std::span(&unknown, 1)), ErrorCode::kInvalidArgument);
  const Request empty{id, none, Wanted::kLast};
  EXPECT_EQ(code_of(std::span(&empty, 1)), ErrorCode::kInvalidArgument);
  const Request twice[] = {{id, one, Wanted::kLast}, {id, one, Wanted::kLast}};
  EXPECT_EQ(code_of(twice), ErrorCode::kInvalidArgument);
  for (const TokenId bad : {-1, static_cast<int>(session->config().vocabulary), 1 << 30}) {
    const std::vector<TokenId> tokens = {1, bad};
    const Request outside{id, tokens, Wanted::kLast};
    EXPECT_EQ(code_of(std::span(&outside, 1)), ErrorCode::kOutOfRange) << bad;
  }
  const std::vector<TokenId> longer(49, 1);
  const auto prefill = session->prefill(id, longer);
  ASSERT_FALSE(prefill.ok());
  EXPECT_EQ(prefill.error().code, ErrorCode::kOutOfRange);
  EXPECT_NE(prefill.error().found.find("49"), std::string::npos);
  const Request step{id, longer, Wanted::kLast};
  EXPECT_EQ(code_of(std::span(&step, 1)), ErrorCode::kOutOfRange);
  EXPECT_EQ(session->length(id), 0);
  EXPECT_TRUE(session->prefill(id, std::span(longer).first(48)).ok()) << "exactly the context fits";
  EXPECT_EQ(code_of(std::span(&step, 1)), ErrorCode::kOutOfRange);
}

TEST(Session, OptionsOutOfRangeAreErrors) {
  SessionOptions options;
  options.context = 129;  // the golden model was made for 128
  const auto longer = Session::open(golden_folder("llama"), options);
  ASSERT_FALSE(longer.ok());
  EXPECT_EQ(longer.error().code, ErrorCode::kOutOfRange);
  options.context = 128;
  options.budget = std::int64_t{1} << 40;  // petabytes
  const auto large = Session::open(golden_folder("llama"), options);
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.error().code, ErrorCode::kOutOfMemory);
  EXPECT_FALSE(large.error().advice.empty());
}

TEST(Session, BudgetIsThePages) {
  SessionOptions options;
  options.context = 64;
  options.budget = 300;
  const auto session = open(golden_folder("llama"), options);
  ASSERT_NE(session, nullptr);
  EXPECT_EQ(session->cache().page_count(), 10);  // of 32 tokens
  std::size_t bytes = 0;
  for (const auto& layer : session->cache().layers()) {
    bytes += layer.keys.size() + layer.values.size();
  }
  EXPECT_EQ(static_cast<std::int64_t>(bytes), 10 * 32 * session->cache().bytes_per_token());
}

// Splitting a prompt into steps of any size does not change what it means.
TEST(Session, BatchSizeChangesNothing) {
  std::vector<float> expected;
  for (const std::int64_t batch : {100, 64, 33, 7, 1}) {
    SessionOptions options;
    options.batch = batch;
    const auto session = open(quantized_copy("llama", DType::kQ4_1), options);
    ASSERT_NE(session, nullptr);
    const auto prompt = prompt_of(4, 100, session->config().vocabulary);
    const auto found = ask(*session, prompt).second;
    if (expected.empty()) expected = found;
    EXPECT_EQ(found, expected) << batch;
  }
}

TEST(Programs, AreCompiledOnceAShape) {
  const auto session = open(golden_folder("llama"), {});
  ASSERT_NE(session, nullptr);
  const auto run = [&](std::size_t tokens) {
    const SequenceId id = session->begin();
    (void)copy_of(session->step(std::vector<Request>{
        {id, prompt_of(tokens, tokens, session->config().vocabulary), Wanted::kLast}}));
    session->end(id);
  };
  run(5);
  EXPECT_EQ(session->compiled_programs(), 1);
  run(5);
  EXPECT_EQ(session->compiled_programs(), 1);
  run(6);
  EXPECT_EQ(session->compiled_programs(), 2);
  run(5);
  run(6);
  EXPECT_EQ(session->compiled_programs(), 2);
  // Far more shapes than are kept: correct all the same, and the oldest are made anew.
  for (std::size_t tokens = 1; tokens <= 60; ++tokens) run(tokens);
  run(5);
  EXPECT_GT(session->compiled_programs(), 60);
}

TEST(Programs, PatchedWeightsAreSeenWithoutCompiling) {
  const auto session = open(quantized_copy("llama", DType::kQ4_1), {});
  ASSERT_NE(session, nullptr);
  const auto tokens = golden_tokens("llama");
  const auto before = *all_logits(*session, tokens);
  const std::int64_t compiled = session->compiled_programs();
  for (const char* name : {"blk.0.ffn_down.weight", "blk.1.attn_norm.weight"}) {
    const auto* tensor = session->source().find(name);
    ASSERT_NE(tensor, nullptr);
    const std::vector<std::byte> original(tensor->data.begin(), tensor->data.end());
    std::vector<std::byte> patched(original.size(), std::byte{0});
    ASSERT_TRUE(session->weights().patch(name, patched).ok());
    EXPECT_NE(*all_logits(*session, tokens), before) << name;
    ASSERT_TRUE(session->weights().patch(name, original).ok());
    EXPECT_EQ(*all_logits(*session, tokens), before) << name;
  }
  EXPECT_EQ(session->compiled_programs(), compiled);
  EXPECT_FALSE(session->weights().patch("no such tensor", {}).ok());
  const std::byte one{};
  EXPECT_FALSE(session->weights().patch("blk.0.ffn_down.weight", std::span(&one, 1)).ok());
}

}  // namespace
}  // namespace hone::testing_models
