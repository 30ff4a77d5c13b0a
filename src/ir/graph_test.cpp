// The graph: what the builder refuses, what the verifier catches, what the hash tells apart.
// SPDX-License-Identifier: Apache-2.0
#include "ir/graph.h"

#include <gtest/gtest.h>

#include <set>

#include "ir/interpret.h"
#include "ir/toy_ops.h"

namespace hone::ir {
namespace {

const Type kPlain = tensor_type({2, 3});

TEST(Attributes, AreOrderedAndTyped) {
  Attributes attributes{{"b", std::int64_t{2}}, {"a", 1.5}};
  attributes.set("c", std::string("text"));
  attributes.set("a", 2.5);
  std::string names;
  for (const auto& [name, value] : attributes) names += name;
  EXPECT_EQ(names, "abc");
  EXPECT_EQ(attributes.number("a"), 2.5);
  EXPECT_EQ(attributes.integer("a", 7), 7) << "a number is no integer";
  EXPECT_EQ(attributes.integer("b"), 2);
  EXPECT_EQ(attributes.text("c"), "text");
  EXPECT_EQ(attributes.text("d", "none"), "none");
  attributes.remove("c");
  EXPECT_EQ(attributes.find("c"), nullptr);
}

TEST(Builder, UnknownOpIsNamed) {
  Builder builder("g", toy::find);
  builder.output(builder.emit("multiply_by_magic", {}), "out");
  const auto graph = builder.finish();
  ASSERT_FALSE(graph.ok());
  EXPECT_EQ(graph.error().code, ErrorCode::kNotFound);
  EXPECT_NE(graph.error().what.find("multiply_by_magic"), std::string::npos);
}

TEST(Builder, UnknownSourceIsNamed) {
  Builder builder("g", toy::find);
  builder.source("oracle", kPlain, {});
  const auto graph = builder.finish();
  ASSERT_FALSE(graph.ok());
  EXPECT_NE(graph.error().what.find("oracle"), std::string::npos);
}

TEST(Builder, FirstTypeErrorIsKeptWithItsPlace) {
  Builder builder("g", toy::find);
  const ValueId a = builder.source("input", kPlain, {});
  const ValueId b = builder.source("input", tensor_type({5}), {});
  const ValueId bad = builder.emit("add", {a, b});  // operation 2
  // Everything after the error is skipped, whatever it is.
  builder.output(builder.emit("no such op", {bad}), "out");
  EXPECT_TRUE(builder.emit_all("split", {bad}).empty());
  const auto graph = builder.finish();
  ASSERT_FALSE(graph.ok());
  EXPECT_EQ(graph.error().what, "the operands do not fit 'add'");
  EXPECT_NE(graph.error().where.find("operation 2"), std::string::npos) << graph.error().where;
  EXPECT_NE(graph.error().found.find("tensor<2x3xf32>, tensor<5xf32>"), std::string::npos);
  EXPECT_EQ(graph.error().expected, "two equal types");
}

TEST(Rewriter, ErrorsComeOutOfFinish) {
  const Graph source = toy::small_graph();
  Rewriter unknown(source, toy::find);
  EXPECT_TRUE(unknown.emit("no such op", {}).empty());
  EXPECT_FALSE(unknown.finish().ok());
  Rewriter wrong(source, toy::find);
  wrong.copy(source.operations[0]);
  EXPECT_TRUE(wrong.emit("add", {0}).empty());
  EXPECT_FALSE(wrong.finish().ok());
}

TEST(Rewriter, CopyOfEverythingIsTheGraph) {
  const Graph source = toy::small_graph();
  Rewriter rewriter(source, toy::find);
  for (const Operation& operation : source.operations) rewriter.copy(operation);
  const auto copy = rewriter.finish();
  ASSERT_TRUE(copy.ok());
  EXPECT_TRUE(verify(*copy).ok());
  EXPECT_EQ(structural_hash(*copy), structural_hash(source));
  EXPECT_EQ(copy->name, source.name);
}

// Breaks one promise of a good graph; the verifier must say so, and in these words.
void expect_broken(const char* words, const std::function<void(Graph&)>& change) {
  Graph graph = toy::small_graph();
  ASSERT_TRUE(verify(graph).ok());
  change(graph);
  const Status status = verify(graph);
  ASSERT_FALSE(status.ok()) << words;
  EXPECT_NE(status.error().text().find(words), std::string::npos) << status.error().text();
}

TEST(Verify, CatchesEachBrokenPromise) {
  expect_broken("has no op", [](Graph& g) { g.operations[2].op = nullptr; });
  expect_broken("before it is made", [](Graph& g) { g.operations[2].operands[0] = 2; });
  expect_broken("before it is made", [](Graph& g) { g.operations[2].operands[0] = -1; });
  expect_broken("before it is made", [](Graph& g) { g.operations[2].operands[0] = 99; });
  expect_broken("before it is made", [](Graph& g) { std::swap(g.operations[0], g.operations[2]); });
  expect_broken("do not fit 'add'", [](Graph& g) { g.operations[2].operands.pop_back(); });
  expect_broken("other result types", [](Graph& g) { g.values[2].type.shape = {3, 2}; });
  expect_broken("other result types", [](Graph& g) { g.values[2].type.dtype = DType::kI32; });
  expect_broken("other result types",
                [](Graph& g) { g.operations[3].attributes.set("parts", std::int64_t{3}); });
  expect_broken("makes value", [](Graph& g) { g.operations[2].results[0] = 1; });
  expect_broken("makes value", [](Graph& g) { g.values[0].producer = 3; });
  expect_broken("output 99 is never made", [](Graph& g) { g.outputs[0] = 99; });
  expect_broken("output -1 is never made", [](Graph& g) { g.outputs[0] = -1; });
  expect_broken("outputs without names", [](Graph& g) { g.output_names.pop_back(); });
  // Reading the type of a result must wait until its number is known to be one.
  expect_broken("makes value 99", [](Graph& g) { g.operations[2].results[0] = 99; });
  expect_broken("makes value -1", [](Graph& g) { g.operations[0].results[0] = -1; });
}

TEST(Verify, StateHasOneWriter) {
  Type state = kPlain;
  state.layout = Layout::kCache;
  Builder builder("g", toy::find);
  const ValueId cache = builder.source("cache", state, {});
  const ValueId value = builder.source("input", kPlain, {});
  const ValueId once = builder.emit("write", {cache, value});
  const ValueId twice = builder.emit("write", {once, value});
  builder.output(twice, "state");
  auto graph = builder.finish();
  ASSERT_TRUE(graph.ok());
  EXPECT_TRUE(verify(*graph).ok());
  graph->operations[3].operands[0] = cache;  // a second writer of the same state
  const Status status = verify(*graph);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().what.find("writes a state that another one wrote"), std::string::npos);
}

TEST(Graph, UsesCountOperandsAndOutputs) {
  Graph graph = toy::small_graph();
  graph.outputs.push_back(2);
  graph.output_names.emplace_back("third");
  EXPECT_EQ(graph.use_counts(), (std::vector<std::int32_t>{1, 1, 2, 1, 1}));
}

TEST(StructuralHash, ChangesWithEachPart) {
  std::set<std::uint64_t> hashes{structural_hash(toy::small_graph())};
  const auto change = [&](const char* what, const std::function<void(Graph&)>& apply) {
    Graph graph = toy::small_graph();
    apply(graph);
    EXPECT_TRUE(hashes.insert(structural_hash(graph)).second) << what;
  };
  change("op", [](Graph& g) { g.operations[2].op = toy::find("write"); });
  change("operand", [](Graph& g) { g.operations[2].operands[1] = 0; });
  change("operand order",
         [](Graph& g) { std::swap(g.operations[2].operands[0], g.operations[2].operands[1]); });
  change("operand count", [](Graph& g) { g.operations[2].operands.pop_back(); });
  change("shape", [](Graph& g) { g.values[0].type.shape = {3, 2}; });
  change("rank", [](Graph& g) { g.values[0].type.shape = {2, 3, 1}; });
  change("dtype", [](Graph& g) { g.values[0].type.dtype = DType::kQ4_1; });
  change("layout", [](Graph& g) { g.values[0].type.layout = Layout::kRows16; });
  change("attribute value", [](Graph& g) { g.operations[2].attributes.set("rate", 0.25); });
  change("attribute kind", [](Graph& g) {
    g.operations[2].attributes.set("rate", static_cast<std::int64_t>(0x3FE0000000000000));
  });
  change("attribute name", [](Graph& g) {
    g.operations[2].attributes.remove("rate");
    g.operations[2].attributes.set("rates", 0.5);
  });
  change("attribute gone", [](Graph& g) { g.operations[2].attributes.remove("rate"); });
  change("attribute text",
         [](Graph& g) { g.operations[0].attributes.set("name", std::string("c")); });
  change("empty list", [](Graph& g) { g.operations[2].attributes.set("rate", Integers{}); });
  change("list", [](Graph& g) { g.operations[2].attributes.set("rate", Integers{1, 2}); });
  change("list order", [](Graph& g) { g.operations[2].attributes.set("rate", Integers{2, 1}); });
  change("numbers", [](Graph& g) { g.operations[2].attributes.set("rate", Numbers{1, 2}); });
  change("texts", [](Graph& g) { g.operations[2].attributes.set("rate", Strings{"ab", "c"}); });
  change("texts cut", [](Graph& g) { g.operations[2].attributes.set("rate", Strings{"a", "bc"}); });
  change("output", [](Graph& g) { g.outputs[0] = 2; });
  change("output order", [](Graph& g) { std::swap(g.outputs[0], g.outputs[1]); });
  change("output name", [](Graph& g) { g.output_names[0] = "other"; });
  change("output count", [](Graph& g) {
    g.outputs.pop_back();
    g.output_names.pop_back();
  });
  Graph renamed = toy::small_graph();
  renamed.name = "another name";
  EXPECT_EQ(structural_hash(renamed), structural_hash(toy::small_graph()));
}

TEST(StructuralHash, ListsDoNotRunIntoWhatFollows) {
  // Were lengths not hashed, the end of one part could pass for the beginning of the next.
  Graph a = toy::small_graph();
  Graph b = toy::small_graph();
  a.operations[2].operands = {0, 1, 1};
  a.operations[2].results = {};
  b.operations[2].operands = {0, 1};
  b.operations[2].results = {};
  EXPECT_NE(structural_hash(a), structural_hash(b));
}

TEST(Interpret, RunsOpByOp) {
  const Graph graph = toy::small_graph();
  const auto out = interpret(graph, [](const Operation& operation, const Type& type) {
    const double value = operation.attributes.text("name") == "a" ? 1.0 : 10.0;
    return Result<Tensor>(Tensor{type, std::vector<double>(6, value)});
  });
  ASSERT_TRUE(out.ok());
  EXPECT_EQ((*out)[0].data, std::vector<double>(6, 11.0));
  EXPECT_EQ((*out)[1].data, std::vector<double>(6, 12.0));
  const auto refused = interpret(graph, [](const Operation&, const Type&) {
    return Result<Tensor>(Error{ErrorCode::kNotFound, "no such value", "", "", "", ""});
  });
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().what, "no such value");
}

}  // namespace
}  // namespace hone::ir
