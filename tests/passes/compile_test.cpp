// Which passes compiling runs: the default order, what is left out, names that are none.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "../support/models.h"
#include "passes/pass.h"

namespace hone::testing_models {
namespace {

using engine::CompileOptions;

Result<ir::Graph> llama_graph() {
  auto session = engine::Session::open(golden_folder("llama"));
  if (!session) return session.error();
  return (*session)->build_graph({5, 2, 4, 2});
}

void expect_names_the_known(const Error& error, const std::string& unknown) {
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_NE(error.what.find("'" + unknown + "'"), std::string::npos) << error.text();
  for (const passes::Pass* pass : passes::all_passes()) {
    EXPECT_NE(error.expected.find(pass->name), std::string::npos)
        << pass->name << " is not in: " << error.text();
  }
}

TEST(Compile, UnknownPassNamesTheKnown) {
  CompileOptions disabled;
  disabled.disabled = {"fold", "fuse_nrom"};
  CompileOptions order;
  order.order = {"cse", "fuse_nrom"};
  const auto graph = llama_graph();
  ASSERT_TRUE(graph.ok()) << graph.error().text();
  for (const CompileOptions& options : {disabled, order}) {
    const auto names = engine::pipeline(options);
    ASSERT_FALSE(names.ok());
    expect_names_the_known(names.error(), "fuse_nrom");
    const auto program = engine::compile(*graph, options);
    ASSERT_FALSE(program.ok());
    expect_names_the_known(program.error(), "fuse_nrom");
  }
}

TEST(Compile, DisabledPassesLeaveThePipeline) {
  const auto whole = engine::pipeline({});
  ASSERT_TRUE(whole.ok());
  const auto graph = llama_graph();
  ASSERT_TRUE(graph.ok()) << graph.error().text();
  for (const std::string& name : *whole) {
    CompileOptions options;
    options.disabled = {name};
    std::vector<std::string> expected = *whole;  // the others stay, in their order
    std::erase(expected, name);
    ASSERT_LT(expected.size(), whole->size());
    std::vector<engine::PassReport> report;
    std::vector<std::string> seen, reported;
    const auto after = engine::run_passes(
        *graph, options, &report,
        [&](const std::string& pass, const ir::Graph&) { seen.push_back(pass); });
    ASSERT_TRUE(after.ok()) << "without " << name << ": " << after.error().text();
    for (const engine::PassReport& row : report) reported.push_back(row.name);
    EXPECT_EQ(reported, expected) << "without " << name;
    ASSERT_FALSE(seen.empty());
    EXPECT_EQ(seen.front(), "");
    EXPECT_EQ(std::vector<std::string>(seen.begin() + 1, seen.end()), expected);
  }
}

TEST(Compile, OrderAndArithmeticDecide) {
  CompileOptions floats;
  floats.arithmetic = engine::Arithmetic::kFloat;
  const auto without = engine::pipeline(floats);
  ASSERT_TRUE(without.ok());
  EXPECT_EQ(std::ranges::count(*without, "integer"), 0);
  EXPECT_EQ(std::ranges::count(*engine::pipeline({}), "integer"), 1);
  CompileOptions own;
  own.order = {"dce", "cse", "dce"};
  own.disabled = {"cse"};
  const auto names = engine::pipeline(own);
  ASSERT_TRUE(names.ok());
  EXPECT_EQ(*names, (std::vector<std::string>{"dce", "dce"}));
}

}  // namespace
}  // namespace hone::testing_models
