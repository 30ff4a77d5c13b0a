// The battery that each line of ops/list.inc buys: type errors, text round trip, and the compiled
// form on every instruction set against the op's own reference.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "base/threads.h"
#include "examples.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "kernels/registry.h"
#include "ops/registry.h"
#include "passes/lower/lower.h"
#include "passes/pass.h"
#include "runtime/execute.h"

namespace hone {
namespace {

using ir::Example;
using ir::Tensor;
using testing_ops::bytes_of;
using testing_ops::draw;
using testing_ops::graph_of;

std::vector<double> decoded(const runtime::Program& program, runtime::Workspace& workspace,
                            std::size_t index) {
  const auto raw = runtime::output(program, workspace, index);
  const ir::Type& type = program.outputs[index].type;
  std::vector<double> out;
  if (type.dtype == DType::kI8 && type.layout == ir::Layout::kRowMajor) {
    const auto* values = reinterpret_cast<const std::int8_t*>(raw.data());
    out.assign(values, values + type.elements());
    return out;
  }
  if (type.layout != ir::Layout::kInt8Rows) {
    out.assign(raw.begin(), raw.begin() + type.elements());
    return out;
  }
  const std::int64_t padded = (type.columns() + 31) / 32 * 32;
  const auto* codes = reinterpret_cast<const std::int8_t*>(raw.data());
  const auto* scales = reinterpret_cast<const float*>(codes + type.rows() * padded);
  for (std::int64_t row = 0; row < type.rows(); ++row) {
    for (std::int64_t i = 0; i < type.columns(); ++i) {
      out.push_back(static_cast<double>(codes[row * padded + i]) *
                    static_cast<double>(scales[(row * padded + i) / 32]));
    }
  }
  return out;
}

class OpBattery : public testing::TestWithParam<const ir::OpDescriptor*> {};

TEST_P(OpBattery, DescribesItself) {
  const ir::OpDescriptor& op = *GetParam();
  EXPECT_FALSE(op.summary.empty());
  EXPECT_NE(op.infer, nullptr);
  EXPECT_EQ(ops::find_op(op.name), &op);
  if (!op.source) {
    EXPECT_NE(op.evaluate, nullptr);
    EXPECT_NE(op.cost, nullptr);
    EXPECT_NE(op.examples, nullptr);
  }
}

TEST_P(OpBattery, RefusesWrongOperands) {
  const ir::OpDescriptor& op = *GetParam();
  const std::vector<std::vector<ir::Type>> wrong = {
      {},
      {ir::tensor_type({3, 5}, DType::kI8)},
      {ir::tensor_type({3, 7}), ir::tensor_type({3, 7}), ir::tensor_type({2, 7}),
       ir::tensor_type({3, 7}), ir::tensor_type({3, 7}), ir::tensor_type({3, 7}),
       ir::tensor_type({3, 9})},
      {ir::tensor_type({3, 5}, DType::kF64), ir::tensor_type({2}, DType::kF64)}};
  for (const auto& types : wrong) {
    const auto result = op.infer(types, {});
    ASSERT_FALSE(result.ok()) << op.name;
    EXPECT_FALSE(result.error().what.empty());
    EXPECT_FALSE(result.error().expected.empty()) << op.name;
  }
}

TEST_P(OpBattery, TextRoundTrip) {
  const ir::OpDescriptor& op = *GetParam();
  if (op.source) return;
  for (const Example& example : op.examples()) {
    const auto graph = graph_of(op, example);
    ASSERT_TRUE(graph.ok()) << graph.error().text();
    EXPECT_TRUE(ir::verify(*graph).ok());
    const std::string text = ir::print(*graph);
    const auto parsed = ir::parse(text, ops::find_op);
    ASSERT_TRUE(parsed.ok()) << parsed.error().text() << "\n" << text;
    EXPECT_EQ(ir::print(*parsed), text);
    EXPECT_EQ(ir::structural_hash(*parsed), ir::structural_hash(*graph));
  }
}

using Results = std::vector<std::vector<double>>;

Results run(const ir::Graph& graph, const std::vector<Tensor>& operands,
            const passes::LowerOptions& options) {
  const auto program = passes::lower(graph, options);
  EXPECT_TRUE(program.ok()) << program.error().text();
  if (!program.ok()) return {};
  std::vector<std::vector<std::byte>> inputs, parameters;
  std::vector<std::span<const std::byte>> input_spans;
  std::vector<runtime::Weight> weights;
  std::vector<const runtime::Weight*> weight_pointers;
  const auto index_of = [](const std::string& name) {
    return static_cast<std::size_t>(std::stoi(name.substr(7)));
  };
  for (const auto& slot : program->inputs)
    inputs.push_back(bytes_of(operands[index_of(slot.name)]));
  for (const auto& slot : program->parameters) {
    parameters.push_back(bytes_of(operands[index_of(slot.name)]));
  }
  for (const auto& input : inputs) input_spans.emplace_back(input);
  for (const auto& parameter : parameters) weights.push_back({parameter});
  for (const auto& weight : weights) weight_pointers.push_back(&weight);
  ThreadPool pool(options.threads);
  runtime::Workspace workspace;
  (void)runtime::execute(*program, {weight_pointers, input_spans, {}}, pool, workspace);
  Results results;
  for (std::size_t r = 0; r < program->outputs.size(); ++r) {
    results.push_back(decoded(*program, workspace, r));
  }
  return results;
}

void compare(const ir::OpDescriptor& op, const Example& example, const Results& results,
             const std::vector<Tensor>& expected, const passes::LowerOptions& options) {
  ASSERT_EQ(results.size(), expected.size());
  for (std::size_t r = 0; r < expected.size(); ++r) {
    double largest = 0;
    for (const double value : expected[r].data) largest = std::max(largest, std::abs(value));
    const double bound = example.tolerance * 0x1p-24 * largest;
    const auto& found = results[r];
    ASSERT_EQ(found.size(), expected[r].data.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], expected[r].data[i], bound)
          << op.name << " result " << r << " element " << i << " on " << options.kernels->isa;
    }
  }
}

TEST_P(OpBattery, CompiledEqualsReference) {
  const ir::OpDescriptor& op = *GetParam();
  if (op.source) return;
  if (op.alias) GTEST_SKIP() << "an alias computes nothing: tests/passes has it inside of graphs";
  Random random(7);
  for (const Example& example : op.examples()) {
    const auto graph = graph_of(op, example);
    ASSERT_TRUE(graph.ok()) << graph.error().text();
    std::vector<Tensor> operands;
    for (const auto& operand : example.operands) operands.push_back(draw(operand, random));
    const auto expected = ir::interpret(*graph, [&](const ir::Operation& source, const ir::Type&) {
      const std::string name(source.attributes.text("name"));
      return Result<Tensor>(operands[static_cast<std::size_t>(std::stoi(name.substr(7)))]);
    });
    ASSERT_TRUE(expected.ok()) << expected.error().text();
    for (const kernels::KernelTable* table : kernels::available_kernels()) {
      Results alone;
      for (const int threads : {1, 2, 3}) {
        passes::LowerOptions options;
        options.kernels = table;
        options.threads = threads;
        const Results results = run(*graph, operands, options);
        compare(op, example, results, *expected, options);
        // No sum may depend on how many threads there are.
        if (threads == 1) alone = results;
        EXPECT_EQ(results, alone) << "other bits on " << threads << " threads, " << table->isa;
        options.reference = true;
        compare(op, example, run(*graph, operands, options), *expected, options);
      }
    }
  }
}

TEST_P(OpBattery, ExpandsToTheSameValues) {
  const ir::OpDescriptor& op = *GetParam();
  if (op.expand == nullptr) return;
  Random random(11);
  for (const Example& example : op.examples()) {
    const auto graph = graph_of(op, example);
    ASSERT_TRUE(graph.ok());
    const auto expanded = passes::find_pass("expand")->run(*graph);
    ASSERT_TRUE(expanded.ok()) << expanded.error().text();
    for (const ir::Operation& operation : expanded->operations) {
      EXPECT_EQ(operation.op->expand, nullptr) << "an expansion into a fused op";
    }
    std::vector<Tensor> operands;
    for (const auto& operand : example.operands) operands.push_back(draw(operand, random));
    const auto provide = [&](const ir::Operation& source, const ir::Type&) {
      const std::string name(source.attributes.text("name"));
      return Result<Tensor>(operands[static_cast<std::size_t>(std::stoi(name.substr(7)))]);
    };
    const auto before = ir::interpret(*graph, provide);
    const auto after = ir::interpret(*expanded, provide);
    ASSERT_TRUE(before.ok() && after.ok());
    for (std::size_t r = 0; r < before->size(); ++r) {
      for (std::size_t i = 0; i < (*before)[r].data.size(); ++i) {
        // Both in double precision: only the order of a few operations differs.
        EXPECT_NEAR((*before)[r].data[i], (*after)[r].data[i],
                    1e-12 * (1 + std::abs((*before)[r].data[i])));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpBattery,
                         testing::ValuesIn(ops::all_ops().begin(), ops::all_ops().end()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace hone
