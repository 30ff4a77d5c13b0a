// Attention among a batch's own tokens in whole models: the logits of the cached form.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "../support/models.h"
#include "base/random.h"
#include "graphs.h"
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::testing_models {
namespace {

using engine::Session;
using engine::SessionOptions;

// Exact but for the order of sums: f32 weights, activations and cache.
SessionOptions exact(std::vector<std::string> first) {
  SessionOptions options;
  options.threads = 2;
  options.budget = 512;  // for several sequences, each in pages of its own
  options.compile.verify = true;
  options.compile.arithmetic = engine::Arithmetic::kFloat;
  options.compile.lower.cache = kernels::CacheKind::kF32;
  const auto usual = engine::pipeline(options.compile);
  options.compile.order = std::move(first);
  if (usual) {
    options.compile.order.insert(options.compile.order.end(), usual->begin(), usual->end());
  }
  return options;
}

// All logits of a batch of sequences of these lengths.
std::vector<float> logits_of(const std::string& model, const SessionOptions& options,
                             std::span<const std::int64_t> lengths) {
  const auto session = Session::open(model, options);
  EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
  if (!session) return {};
  Random random(31);
  std::vector<std::vector<engine::TokenId>> texts;
  std::vector<engine::Request> requests;
  for (const std::int64_t length : lengths) {
    auto& text = texts.emplace_back();
    for (std::int64_t i = 0; i < length; ++i) {
      text.push_back(static_cast<engine::TokenId>(
          random.below(static_cast<std::uint32_t>((*session)->config().vocabulary))));
    }
  }
  for (const auto& text : texts) {
    requests.push_back({(*session)->begin(), text, engine::Wanted::kAll});
  }
  const auto logits = (*session)->step(requests);
  EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
  return logits ? std::vector<float>(logits->begin(), logits->end()) : std::vector<float>{};
}

class Sequences : public testing::TestWithParam<const char*> {};

TEST_P(Sequences, GiveTheLogitsOfTheCachedForm) {
  const std::string model = golden_folder(GetParam());
  const std::vector<std::int64_t> lengths = {1, 7, 40, 3, 19};
  const auto cached = logits_of(model, exact({}), lengths);
  ASSERT_FALSE(cached.empty());
  // Two orders of the sums over keys; a few roundings of each of a few layers.
  constexpr double kTolerance = 256;
  const auto own = logits_of(model, exact({"sequences"}), lengths);
  EXPECT_EQ(testing_graphs::difference({cached}, {own}, kTolerance), "");
  // After fusions, too.
  SessionOptions late = exact({});
  late.compile.order.emplace_back("sequences");
  EXPECT_EQ(testing_graphs::difference({cached}, {logits_of(model, late, lengths)}, kTolerance),
            "");
}

TEST_P(Sequences, NeedNoCache) {
  const auto session = Session::open(golden_folder(GetParam()), exact({}));
  ASSERT_TRUE(session.ok());
  const auto graph = (*session)->build_graph({11, 2, 4, 3});
  ASSERT_TRUE(graph.ok());
  const auto after = passes::find_pass("sequences")->run(*graph);
  ASSERT_TRUE(after.ok()) << after.error().text();
  int attentions = 0;
  for (const ir::Operation& operation : after->operations) {
    EXPECT_FALSE(operation.is("cache") || operation.is("cache_write") || operation.is("attention"));
    EXPECT_FALSE(operation.op->effect) << operation.op->name;
    if (operation.is("input")) {
      EXPECT_NE(operation.attributes.text("name"), "slots");
      EXPECT_NE(operation.attributes.text("name"), "pages");
    }
    attentions += operation.is("sequence_attention") ? 1 : 0;
  }
  EXPECT_EQ(attentions, (*session)->config().layers);
}

INSTANTIATE_TEST_SUITE_P(All, Sequences,
                         testing::Values("llama", "llama-rope3", "gemma3", "gemma3-linear", "qwen2",
                                         "qwen3", "gpt2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(SequencesPass, RefusesACacheThatNobodyWrote) {
  ir::Builder builder("bare", ops::find_op);
  const auto input = [&](const char* name, ir::Shape shape, DType dtype = DType::kI32) {
    return builder.source("input", ir::tensor_type(std::move(shape), dtype),
                          {{"name", std::string(name)}});
  };
  const ir::Type state{DType::kF16, {1, 8}, ir::Layout::kCache};
  const auto cache = builder.source("cache", state, {{"layer", std::int64_t{0}}});
  const auto out = builder.emit("attention",
                                {input("q", {2, 8}, DType::kF32), cache, input("positions", {2}),
                                 input("offsets", {2}), input("pages", {1, 1})},
                                {{"heads", std::int64_t{1}}, {"scale", 1.0}});
  builder.output(out, "out");
  const auto graph = builder.finish();
  ASSERT_TRUE(graph.ok()) << graph.error().text();
  const auto after = passes::find_pass("sequences")->run(*graph);
  ASSERT_FALSE(after.ok());
  EXPECT_NE(after.error().what.find("cache"), std::string::npos);
}

}  // namespace
}  // namespace hone::testing_models
