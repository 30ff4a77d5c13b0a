// Passes on whole models: the same logits with and without each, in any order, down to none.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "../support/models.h"
#include "base/random.h"
#include "graphs.h"
#include "ir/text.h"
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::testing_models {
namespace {

using engine::CompileOptions;
using engine::Session;
using engine::SessionOptions;
using testing_graphs::difference;

const std::vector<std::string> kFamilies = {"llama", "llama-rope3", "gemma3", "gemma3-linear",
                                            "qwen2", "qwen3",       "gpt2"};
const std::vector<std::string> kOptional = {"fold",      "cse",           "dce",       "fuse_signs",
                                            "fuse_norm", "fuse_residual", "fuse_gate", "fuse_group",
                                            "fuse_rope", "layout"};

double tolerance_of(std::span<const std::string> names) {
  double sum = 0;
  for (const std::string& name : names) sum += passes::find_pass(name)->tolerance;
  return sum;
}

SessionOptions with_order(std::vector<std::string> order) {
  SessionOptions options;
  options.threads = 2;
  options.compile.verify = true;
  // An empty order would mean the default one: dce alone keeps every value.
  options.compile.order = order.empty() ? std::vector<std::string>{"dce"} : std::move(order);
  return options;
}

std::vector<float> logits_of(const std::string& model, const SessionOptions& options,
                             std::span<const engine::TokenId> tokens) {
  const auto session = Session::open(model, options);
  EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
  if (!session) return {};
  const auto logits = all_logits(**session, tokens);
  EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
  return logits ? *logits : std::vector<float>{};
}

// The folder as it is, and a copy with quantized weights.
class PassesOnFamily : public testing::TestWithParam<std::string> {
 protected:
  static std::vector<std::string> forms() {
    std::vector<std::string> out = {golden_folder(GetParam())};
    for (const DType dtype : {DType::kQ4_1, DType::kQ8_0}) {
      out.push_back(quantized_copy(GetParam(), dtype));
    }
    return out;
  }
};

TEST_P(PassesOnFamily, SameLogitsWithAndWithoutEach) {
  const auto tokens = golden_tokens(GetParam());
  ASSERT_FALSE(tokens.empty());
  for (const std::string& model : forms()) {
    ASSERT_FALSE(model.empty());
    SessionOptions options = with_order({});
    options.compile.order.clear();
    const auto whole = logits_of(model, options, tokens);
    ASSERT_FALSE(whole.empty());
    for (const std::string& name : kOptional) {
      SessionOptions without = options;
      without.compile.disabled = {name};
      EXPECT_EQ(difference({whole}, {logits_of(model, without, tokens)},
                           passes::find_pass(name)->tolerance),
                "")
          << model << " without " << name;
      // And alone, against no pass at all but the arithmetic.
      EXPECT_EQ(difference({logits_of(model, with_order({"integer"}), tokens)},
                           {logits_of(model, with_order({"integer", name}), tokens)},
                           passes::find_pass(name)->tolerance),
                "")
          << model << " with " << name << " alone";
    }
  }
}

TEST_P(PassesOnFamily, ExpandedGraphGivesTheSameLogits) {
  const auto tokens = golden_tokens(GetParam());
  for (const std::string& model : forms()) {
    SessionOptions options = with_order({});
    options.compile.order.clear();
    const auto whole = logits_of(model, options, tokens);
    auto names = engine::pipeline(options.compile);
    ASSERT_TRUE(names.ok());
    names->push_back("expand");
    const double tolerance = tolerance_of(*names);
    EXPECT_EQ(difference({whole}, {logits_of(model, with_order(*names), tokens)}, tolerance), "")
        << model;
  }
}

TEST_P(PassesOnFamily, TwiceIsOnce) {
  for (const std::string& model : forms()) {
    const auto session = Session::open(model, with_order({}));
    ASSERT_TRUE(session.ok());
    const auto graph = (*session)->build_graph({5, 2, 4, 2});
    ASSERT_TRUE(graph.ok()) << graph.error().text();
    for (const bool optimized : {false, true}) {
      CompileOptions options;
      options.order = {"integer"};
      if (optimized) options.order.clear();
      const auto start = engine::run_passes(*graph, options);
      ASSERT_TRUE(start.ok()) << start.error().text();
      for (const passes::Pass* pass : passes::all_passes()) {
        const auto once = pass->run(*start);
        ASSERT_TRUE(once.ok()) << pass->name << once.error().text();
        ASSERT_TRUE(ir::verify(*once).ok()) << pass->name;
        const auto twice = pass->run(*once);
        ASSERT_TRUE(twice.ok());
        EXPECT_EQ(ir::structural_hash(*once), ir::structural_hash(*twice)) << pass->name;
      }
    }
  }
}

TEST_P(PassesOnFamily, GraphComesBackFromText) {
  const auto session = Session::open(golden_folder(GetParam()), with_order({}));
  ASSERT_TRUE(session.ok());
  const auto graph = (*session)->build_graph({7, 2, 4, 3});
  ASSERT_TRUE(graph.ok());
  const auto optimized = engine::run_passes(*graph, {});
  ASSERT_TRUE(optimized.ok());
  for (const ir::Graph* one : {&*graph, &*optimized}) {
    const auto parsed = ir::parse(ir::print(*one), ops::find_op);
    ASSERT_TRUE(parsed.ok()) << parsed.error().text();
    EXPECT_EQ(ir::print(*parsed), ir::print(*one));
    EXPECT_EQ(ir::structural_hash(*parsed), ir::structural_hash(*one));
  }
}

INSTANTIATE_TEST_SUITE_P(All, PassesOnFamily, testing::ValuesIn(kFamilies), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

TEST(PassOrder, AnyOrderGivesTheSameLogits) {
  Random random(23);
  const double tolerance = tolerance_of(kOptional);
  for (const char* name : {"llama", "gemma3"}) {
    const std::string model = quantized_copy(name, DType::kQ4_1);
    const auto tokens = golden_tokens(name);
    const auto expected = logits_of(model, with_order({"integer"}), tokens);
    ASSERT_FALSE(expected.empty());
    for (int round = 0; round < 30; ++round) {
      std::vector<std::string> order = kOptional;
      for (std::size_t i = order.size(); i > 1; --i) {
        std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
      }
      order.insert(order.begin(), "integer");
      std::string text;
      for (const std::string& pass : order) text += " " + pass;
      ASSERT_EQ(difference({expected}, {logits_of(model, with_order(order), tokens)}, tolerance),
                "")
          << name << ":" << text;
    }
  }
}

// Each fusion is found in the models that it was written for.
TEST(PassOrder, DefaultPipelineFuses) {
  const auto count = [](const char* family, const char* op) {
    const auto session = Session::open(quantized_copy(family, DType::kQ4_1), with_order({}));
    if (!session) return -1;
    const auto graph = (*session)->build_graph({1, 1, 4, 1});
    const auto after = engine::run_passes(*graph, {});
    if (!after) return -1;
    return static_cast<int>(std::ranges::count_if(
        after->operations, [&](const auto& operation) { return operation.is(op); }));
  };
  EXPECT_EQ(count("llama", "matmul_group"), 2);
  EXPECT_EQ(count("llama", "matmul_gated"), 2);
  EXPECT_EQ(count("llama", "matmul_add"), 4);
  EXPECT_EQ(count("llama", "rope_write"), 2);
  EXPECT_EQ(count("llama", "rms_norm_quantize"), 5);
  EXPECT_EQ(count("llama", "rms_norm"), 0);
  EXPECT_EQ(count("gemma3", "rms_norm_add"), 14);
  EXPECT_EQ(count("gemma3", "rope_write"), 7);
}

TEST(RealModel, NoOptionalPassAtAllGivesTheSameLogits) {
  const std::string path = cached_model("smollm2-135m-instruct-q4_1.gguf");
  if (path.empty()) GTEST_SKIP() << "smollm2-135m-instruct-q4_1.gguf is not in the cache";
  const std::vector<engine::TokenId> tokens = {1, 504, 3575, 282, 4649, 314};
  const auto plain = logits_of(path, with_order({"integer"}), tokens);
  SessionOptions options = with_order({});
  options.compile.order.clear();
  const auto whole = logits_of(path, options, tokens);
  ASSERT_FALSE(whole.empty());
  EXPECT_EQ(difference({plain}, {whole}, tolerance_of(kOptional)), "");
}

}  // namespace
}  // namespace hone::testing_models
