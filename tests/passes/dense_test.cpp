// The products of training on weights of every type: the same bits for any number of threads and
// with or without the layout pass, and close to the references.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "graphs.h"
#include "kernels/gemm.h"
#include "ops/registry.h"
#include "passes/pass.h"

namespace hone::testing_graphs {
namespace {

constexpr std::int64_t kTokens = 13;
constexpr std::int64_t kColumns = 256;  // whole blocks of every type
constexpr std::int64_t kWords = 99;

// A product, its gradients, and a loss over the same weight.
ir::Graph training_graph(DType dtype, bool weight_gradient, bool trained = false) {
  ir::Builder builder("training", ops::find_op);
  const auto input = [&](const char* name, ir::Type type) {
    return builder.source("input", std::move(type), {{"name", std::string(name)}});
  };
  const ir::ValueId x = input("x", ir::tensor_type({kTokens, kColumns}));
  const ir::ValueId targets = input("targets", ir::tensor_type({kTokens}, DType::kI32));
  const ir::ValueId weights = input("weights", ir::tensor_type({kTokens}));
  ir::Attributes attributes{{"name", std::string("w")}};
  if (trained) attributes.set("writable", true);
  const ir::ValueId w =
      builder.source("parameter", ir::tensor_type({kWords, kColumns}, dtype), attributes);
  const ir::ValueId y = builder.emit("matmul", {x, w});
  builder.output(y, "y");
  builder.output(builder.emit("matmul_back", {y, w}), "dx");
  builder.output(builder.emit("matmul_outer", {y, x}), "dw");
  const auto loss = builder.emit_all("output_loss", {x, w, targets, weights},
                                     {{"cap", 10.0}, {"weight_gradient", weight_gradient}});
  for (std::size_t i = 0; i < loss.size(); ++i) builder.output(loss[i], "l" + std::to_string(i));
  return *builder.finish();
}

ir::Graph after(const char* pass, const ir::Graph& graph) {
  auto result = passes::find_pass(pass)->run(graph);
  EXPECT_TRUE(result.ok()) << result.error().text();
  return *std::move(result);
}

std::vector<std::vector<float>> run(const ir::Graph& graph, const kernels::KernelTable* table,
                                    int threads, bool reference = false) {
  passes::LowerOptions options;
  options.kernels = table;
  options.threads = threads;
  options.reference = reference;
  auto outputs = run_graph(graph, options);
  EXPECT_TRUE(outputs.ok()) << outputs.error().text();
  return *std::move(outputs);
}

class TrainingProducts : public testing::TestWithParam<DType> {};

TEST_P(TrainingProducts, OneResultForAnyNumberOfThreadsAndLayout) {
  for (const bool integer : {false, true}) {
    if (integer && !is_block_quantized(GetParam())) continue;
    ir::Graph graph = training_graph(GetParam(), true);
    if (integer) graph = after("integer", graph);
    const ir::Graph packed = after("layout", graph);
    for (const ir::Operation& operation : packed.operations) {
      if (operation.is("parameter")) {
        EXPECT_EQ(packed.type(operation.results[0]).layout, ir::Layout::kRows16);
      }
    }
    for (const kernels::KernelTable* table : kernels::available_kernels()) {
      const auto expected = run(graph, table, 1);
      for (const int threads : {2, 3}) {
        EXPECT_EQ(difference(expected, run(graph, table, threads), 0), "") << table->isa;
        EXPECT_EQ(difference(expected, run(packed, table, threads), 0), "") << table->isa;
      }
    }
  }
}

// Sums of up to 256 products, then of 99: half an epsilon each in the worst case; the integer form
// rounds a block's integer product once more.
TEST_P(TrainingProducts, CloseToTheReferences) {
  for (const bool integer : {false, true}) {
    if (integer && !is_block_quantized(GetParam())) continue;
    for (const bool weight_gradient : {false, true}) {
      ir::Graph graph = training_graph(GetParam(), weight_gradient);
      if (integer) graph = after("integer", graph);
      graph = after("layout", graph);
      const auto expected = run(graph, nullptr, 1, true);
      for (const kernels::KernelTable* table : kernels::available_kernels()) {
        EXPECT_EQ(difference(expected, run(graph, table, 2), 256), "") << table->isa;
      }
    }
  }
}

std::vector<DType> weight_types() {
  std::vector<DType> types;
  for (const DTypeInfo& info : all_dtypes()) {
    if (kernels::takes_gemm(info.dtype, 16, 256)) types.push_back(info.dtype);
  }
  return types;
}

INSTANTIATE_TEST_SUITE_P(Types, TrainingProducts, testing::ValuesIn(weight_types()),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

TEST(Layout, LeavesTrainedParametersAlone) {
  const ir::Graph packed = after("layout", training_graph(DType::kF32, true, true));
  for (const ir::Operation& operation : packed.operations) {
    if (operation.is("parameter")) {
      EXPECT_EQ(packed.type(operation.results[0]).layout, ir::Layout::kRowMajor);
    }
  }
}

}  // namespace
}  // namespace hone::testing_graphs
