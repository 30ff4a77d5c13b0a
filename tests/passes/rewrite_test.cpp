// The battery that each line of a pass list buys: on random graphs the same values before and
// after, the same graph when run twice, sound graphs always, and any order of the optional passes.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/random.h"
#include "graphs.h"
#include "ir/text.h"
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::testing_graphs {
namespace {

constexpr std::uint64_t kSeeds = 40;
constexpr int kSize = 24;

passes::LowerOptions on(int threads) {
  passes::LowerOptions options;
  options.threads = threads;
  return options;
}

ir::Graph integer_form(const ir::Graph& graph) {
  auto out = passes::find_pass("integer")->run(graph);
  return out ? *std::move(out) : ir::Graph{};
}

const std::vector<std::string> kOptional = {"fold",      "cse",           "dce",       "fuse_signs",
                                            "fuse_norm", "fuse_residual", "fuse_gate", "fuse_group",
                                            "fuse_rope", "layout"};

Result<ir::Graph> run_all(ir::Graph graph, std::span<const std::string> names) {
  for (const std::string& name : names) {
    auto after = passes::find_pass(name)->run(graph);
    if (!after) return after.error().in(name);
    const Status sound = ir::verify(*after);
    if (!sound.ok()) return sound.error().in(name);
    graph = *std::move(after);
  }
  return graph;
}

// A run of passes is off by no more than what its passes are off by themselves.
double tolerance_of(std::span<const std::string> names) {
  double sum = 0;
  for (const std::string& name : names) sum += passes::find_pass(name)->tolerance;
  return sum;
}

class PassBattery : public testing::TestWithParam<const passes::Pass*> {};

TEST_P(PassBattery, DescribesItself) {
  const passes::Pass& pass = *GetParam();
  EXPECT_FALSE(pass.summary.empty());
  EXPECT_EQ(passes::find_pass(pass.name), &pass);
  EXPECT_NE(pass.run, nullptr);
  EXPECT_GE(pass.tolerance, 0);
}

TEST_P(PassBattery, KeepsValues) {
  const passes::Pass& pass = *GetParam();
  if (pass.kind != passes::PassKind::kRewrite) GTEST_SKIP() << "a transform gives a new meaning";
  int changed = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    for (const bool integer : {false, true}) {
      ir::Graph graph = random_graph(seed, kSize);
      ASSERT_FALSE(graph.operations.empty());
      if (integer) graph = integer_form(graph);
      // `expand` gets something to expand.
      if (pass.name == "expand") {
        const std::vector<std::string> fusions = {
            "cse", "fuse_signs", "fuse_norm", "fuse_residual", "fuse_gate", "fuse_group", "dce"};
        auto fused = run_all(std::move(graph), fusions);
        ASSERT_TRUE(fused.ok()) << fused.error().text();
        graph = *std::move(fused);
      }
      const auto after = pass.run(graph);
      ASSERT_TRUE(after.ok()) << after.error().text() << ir::print(graph);
      ASSERT_TRUE(ir::verify(*after).ok()) << ir::verify(*after).error().text();
      changed += ir::structural_hash(graph) != ir::structural_hash(*after) ? 1 : 0;
      const auto expected = run_graph(graph, on(1));
      const auto found = run_graph(*after, on(1 + static_cast<int>(seed % 3)));
      ASSERT_TRUE(expected.ok()) << expected.error().text();
      ASSERT_TRUE(found.ok()) << found.error().text();
      ASSERT_EQ(difference(*expected, *found, pass.tolerance), "")
          << pass.name << ", seed " << seed << (integer ? ", integer\n" : "\n") << ir::print(graph)
          << ir::print(*after);
    }
  }
  // fuse_rope needs a cache, which only models have: tests/passes/model_test.cpp.
  if (pass.name != "fuse_rope") {
    EXPECT_GT(changed, 5) << "the random graphs hold little for this pass";
  }
}

TEST_P(PassBattery, TwiceIsOnce) {
  const passes::Pass& pass = *GetParam();
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    for (const bool integer : {false, true}) {
      ir::Graph graph = random_graph(seed, kSize);
      if (integer) graph = integer_form(graph);
      const auto once = pass.run(graph);
      ASSERT_TRUE(once.ok()) << once.error().text();
      const auto twice = pass.run(*once);
      ASSERT_TRUE(twice.ok()) << twice.error().text();
      ASSERT_EQ(ir::structural_hash(*once), ir::structural_hash(*twice))
          << pass.name << ", seed " << seed << "\n"
          << ir::print(*once) << ir::print(*twice);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PassBattery,
                         testing::ValuesIn(passes::all_passes().begin(),
                                           passes::all_passes().end()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST(Expand, UndoesEveryFusion) {
  const std::vector<std::string> fusions = {"cse",       "fuse_signs", "fuse_norm", "fuse_residual",
                                            "fuse_gate", "fuse_group", "dce"};
  int fused_operations = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const auto fused = run_all(integer_form(random_graph(seed, kSize)), fusions);
    ASSERT_TRUE(fused.ok()) << fused.error().text();
    for (const auto& operation : fused->operations) {
      fused_operations += operation.op->expand != nullptr ? 1 : 0;
    }
    const auto plain = passes::find_pass("expand")->run(*fused);
    ASSERT_TRUE(plain.ok()) << plain.error().text();
    for (const auto& operation : plain->operations) {
      EXPECT_EQ(operation.op->expand, nullptr) << operation.op->name;
    }
    // Fusing again gives no more operations; fewer where small ones turn out to be equal.
    const auto again = run_all(*plain, fusions);
    ASSERT_TRUE(again.ok());
    EXPECT_LE(again->operations.size(), fused->operations.size()) << "seed " << seed;
  }
  EXPECT_GT(fused_operations, 50);
}

TEST(Order, AnyOrderOfTheOptionalPassesGivesTheSameValues) {
  Random random(17);
  const double tolerance = tolerance_of(kOptional);
  for (std::uint64_t seed = 100; seed < 160; ++seed) {
    const ir::Graph graph = integer_form(random_graph(seed, kSize));
    const auto expected = run_graph(graph, on(1));
    ASSERT_TRUE(expected.ok()) << expected.error().text();
    std::vector<std::string> order = kOptional;
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
    }
    std::string names;
    for (const std::string& name : order) names += " " + name;
    const auto after = run_all(graph, order);
    ASSERT_TRUE(after.ok()) << after.error().text() << names << "\n" << ir::print(graph);
    const auto found = run_graph(*after, on(2));
    ASSERT_TRUE(found.ok()) << found.error().text();
    ASSERT_EQ(difference(*expected, *found, tolerance), "") << "seed " << seed << ":" << names;
  }
}

TEST(Lowering, ReferenceAndKernelsAgreeOnRandomGraphs) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const ir::Graph graph = random_graph(seed, 12);
    passes::LowerOptions reference;
    reference.reference = true;
    const auto expected = run_graph(graph, reference);
    const auto found = run_graph(graph, on(2));
    ASSERT_TRUE(expected.ok() && found.ok());
    // Roundings of sums of up to 128 terms, a dozen ops deep, behind norms that may enlarge them.
    ASSERT_EQ(difference(*expected, *found, 4096), "") << "seed " << seed << ir::print(graph);
  }
}

TEST(Passes, UnknownNameIsNone) { EXPECT_EQ(passes::find_pass("no such pass"), nullptr); }

}  // namespace
}  // namespace hone::testing_graphs
