// Every family against transformers: small folders with random weights whose logits transformers
// computed (tests/golden/models/make.py), and the two real models.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/system.h"
#include "engine/session.h"

namespace hone::engine {
namespace {

const std::string kGolden = std::string(HONE_SOURCE_DIR) + "/tests/golden/models/";

nlohmann::json read_json(const std::string& path) {
  const auto text = read_file(path);
  return text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json();
}

std::vector<float> read_floats(const std::string& path) {
  const auto bytes = read_file(path);
  if (!bytes) return {};
  std::vector<float> out(bytes->size() / sizeof(float));
  std::memcpy(out.data(), bytes->data(), out.size() * sizeof(float));
  return out;
}

double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

SessionOptions exact() {
  SessionOptions options;
  options.compile.arithmetic = Arithmetic::kFloat;
  options.compile.lower.cache = kernels::CacheKind::kF32;
  options.compile.verify = true;
  options.threads = 2;
  return options;
}

std::vector<float> all_logits(Session& session, std::span<const TokenId> tokens) {
  const SequenceId sequence = session.begin();
  const Request request{sequence, tokens, Wanted::kAll};
  const auto logits = session.step(std::span(&request, 1));
  EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
  std::vector<float> out;
  if (logits.ok()) out.assign(logits->begin(), logits->end());
  session.end(sequence);
  return out;
}

class Family : public testing::TestWithParam<const char*> {};

TEST_P(Family, LogitsOfTransformers) {
  const std::string folder = kGolden + GetParam();
  const auto session = Session::open(folder, exact());
  ASSERT_TRUE(session.ok()) << session.error().text();
  const auto tokens = read_json(folder + "/tokens.json")["tokens"].get<std::vector<TokenId>>();
  const auto expected = read_floats(folder + "/logits.bin");
  const auto found = all_logits(**session, tokens);
  ASSERT_EQ(found.size(), expected.size());
  const std::size_t vocabulary = found.size() / tokens.size();
  double largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(double{value}));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto a = std::span(found).subspan(i * vocabulary, vocabulary);
    const auto b = std::span(expected).subspan(i * vocabulary, vocabulary);
    EXPECT_GE(cosine(a, b), 0.999999) << "position " << i;
    for (std::size_t v = 0; v < vocabulary; ++v) {
      // Two f32 evaluations in different orders of sums: some thousand roundings.
      ASSERT_NEAR(a[v], b[v], largest * 1e-4) << "position " << i << ", token " << v;
    }
  }
}

// Prefill in one step, in pieces and token by token: the same bits.
TEST_P(Family, StepByStepEqualsPrefill) {
  for (const Arithmetic arithmetic : {Arithmetic::kFloat, Arithmetic::kInteger}) {
    SessionOptions options = exact();
    options.compile.arithmetic = arithmetic;
    options.compile.lower.cache = kernels::CacheKind::kF16;
    options.reuse_prefixes = false;
    const auto session = Session::open(kGolden + GetParam(), options);
    ASSERT_TRUE(session.ok()) << session.error().text();
    const auto tokens =
        read_json(kGolden + GetParam() + "/tokens.json")["tokens"].get<std::vector<TokenId>>();
    const auto whole = all_logits(**session, tokens);
    const std::size_t vocabulary = whole.size() / tokens.size();
    for (const std::size_t piece : {std::size_t{1}, std::size_t{5}}) {
      const SequenceId sequence = (*session)->begin();
      for (std::size_t at = 0; at < tokens.size(); at += piece) {
        const std::size_t count = std::min(piece, tokens.size() - at);
        const Request request{sequence, std::span(tokens).subspan(at, count), Wanted::kLast};
        const auto logits = (*session)->step(std::span(&request, 1));
        ASSERT_TRUE(logits.ok()) << logits.error().text();
        const auto row = std::span(whole).subspan((at + count - 1) * vocabulary, vocabulary);
        ASSERT_TRUE(std::ranges::equal(*logits, row)) << "piece " << piece << " at " << at;
      }
      (*session)->end(sequence);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Family,
                         testing::Values("llama", "llama-rope3", "gemma3", "gemma3-linear", "qwen2",
                                         "qwen3", "gpt2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

class RealModel : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(RealModel, LogitsOfTransformersOnDequantizedWeights) {
  const auto [file, golden] = GetParam();
  const std::string path = cache_folder() + "/models/" + file;
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  const nlohmann::json expected = read_json(kGolden + golden + std::string(".json"));
  const auto sample = read_floats(kGolden + golden + std::string(".bin"));
  const auto tokens = expected["tokens"].get<std::vector<TokenId>>();
  const auto positions = expected["positions"].get<std::vector<std::size_t>>();
  const auto stride = expected["stride"].get<std::size_t>();
  const auto session = Session::open(path, exact());
  ASSERT_TRUE(session.ok()) << session.error().text();
  const auto logits = all_logits(**session, tokens);
  const std::size_t vocabulary = logits.size() / tokens.size();
  const std::size_t count = sample.size() / positions.size();
  for (std::size_t p = 0; p < positions.size(); ++p) {
    std::vector<float> found;
    for (std::size_t i = 0; i < count; ++i) {
      found.push_back(logits[positions[p] * vocabulary + i * stride]);
    }
    EXPECT_GE(cosine(found, std::span(sample).subspan(p * count, count)), 0.9999)
        << "position " << positions[p];
  }
  const auto best = expected["argmax"].get<std::vector<TokenId>>();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto row = std::span(logits).subspan(i * vocabulary, vocabulary);
    EXPECT_EQ(std::ranges::max_element(row) - row.begin(), best[i]) << "position " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, RealModel,
    testing::Values(std::pair{"smollm2-135m-instruct-q4_1.gguf", "smollm2-135m-q4_1"},
                    std::pair{"gemma-3-270m-q4_k_m.gguf", "gemma-3-270m-q4_k_m"}),
    [](const auto& info) { return std::string(info.index == 0 ? "smollm2" : "gemma3"); });

}  // namespace
}  // namespace hone::engine
