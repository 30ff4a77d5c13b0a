// The battery of tangent rules: every rule, on its op's examples, against central differences in
// double precision. A new rule is tested by being there.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "examples.h"
#include "ir/interpret.h"
#include "ops/registry.h"

namespace hone {
namespace {

using ir::Tensor;
using ir::ValueId;
using Values = std::vector<Tensor>;

// Angles come from positions, what a loss is weighted with is given, and codes do not change.
bool is_constant(const ir::OpDescriptor& op, std::size_t operand) {
  return (op.name == "rope" && operand == 1) || (op.name == "output_loss" && operand != 0) ||
         (op.name == "gather" && operand == 1) || (op.name == "matmul_scaled" && operand == 1);
}

Values interpret(const ir::Graph& graph, const Values& operands, const Values& changes) {
  auto outputs = ir::interpret(graph, [&](const ir::Operation& source, const ir::Type&) {
    const auto name = std::string(source.attributes.text("name"));
    const auto index = static_cast<std::size_t>(std::stoul(name.substr(1)));
    return Result<Tensor>(name[0] == 'x' ? operands[index] : changes[index]);
  });
  EXPECT_TRUE(outputs.ok()) << (outputs.ok() ? "" : outputs.error().text());
  return outputs.ok() ? *outputs : Values{};
}

// The op on inputs "x<i>"; with `tangent` its rule's graph, changes in inputs "d<i>".
ir::Graph graph_of(const ir::OpDescriptor& op, const ir::Example& example,
                   const std::vector<bool>& changed, bool tangent) {
  ir::Builder builder("tangent", ops::find_op);
  std::vector<ValueId> operands;
  std::vector<ir::Type> types;
  for (std::size_t i = 0; i < example.operands.size(); ++i) {
    types.push_back(example.operands[i].type);
    operands.push_back(builder.source("input", types.back(), {{"name", "x" + std::to_string(i)}}));
  }
  const std::vector<ValueId> results = builder.emit_all(op.name, operands, example.attributes);
  std::vector<ValueId> incoming;
  for (std::size_t i = 0; tangent && i < operands.size(); ++i) {
    incoming.push_back(changed[i]
                           ? builder.source("input", types[i], {{"name", "d" + std::to_string(i)}})
                           : ir::kNoTangent);
  }
  const ir::Emit emit = [&](std::string_view name, std::vector<ValueId> with, ir::Attributes how) {
    return builder.emit_all(name, std::move(with), std::move(how));
  };
  std::vector<ValueId> out = results;
  if (tangent) {
    out = op.tangent({operands, types, results, incoming, example.attributes, emit});
  }
  for (std::size_t r = 0; r < out.size(); ++r) {
    if (testing_ops::is_auxiliary(op, r)) continue;
    EXPECT_NE(out[r], ir::kNoTangent) << op.name;
    builder.output(builder.emit("scale", {out[r]}, {{"factor", 1.0}}), "y" + std::to_string(r));
  }
  auto graph = builder.finish();
  EXPECT_TRUE(graph.ok()) << (graph.ok() ? "" : graph.error().text());
  return graph.ok() ? *graph : ir::Graph{};
}

class TangentBattery : public testing::TestWithParam<const ir::OpDescriptor*> {};

// All operands at once, and each alone: a rule adds up what it is given.
TEST_P(TangentBattery, EqualsCentralDifferences) {
  const ir::OpDescriptor& op = *GetParam();
  Random random(31);
  for (const ir::Example& example : op.examples()) {
    if (example.attributes.find("rounding") != nullptr) continue;  // a staircase
    if (example.attributes.flag("losses_only")) continue;          // it has given up on derivatives
    Values operands;
    std::vector<std::size_t> real;
    for (std::size_t i = 0; i < example.operands.size(); ++i) {
      operands.push_back(testing_ops::draw(example.operands[i], random));
      if (operands.back().type.dtype == DType::kF32 && !is_constant(op, i)) real.push_back(i);
    }
    for (std::size_t alone = 0; alone <= real.size(); ++alone) {
      std::vector<bool> changed(operands.size(), false);
      Values changes = operands;
      for (std::size_t i = 0; i < operands.size(); ++i) {
        const bool moves =
            std::ranges::count(real, i) > 0 && (alone == real.size() || real[alone] == i);
        changed[i] = moves;
        for (double& value : changes[i].data) value = moves ? random.normal() : 0;
      }
      const ir::Graph forward = graph_of(op, example, changed, false);
      const Values tangents = interpret(graph_of(op, example, changed, true), operands, changes);
      const auto moved = [&](double h) {
        Values at = operands;
        for (std::size_t i = 0; i < at.size(); ++i) {
          for (std::size_t j = 0; j < at[i].data.size(); ++j) {
            at[i].data[j] += h * changes[i].data[j];
          }
        }
        return interpret(forward, at, changes);
      };
      // Richardson's extrapolation: what is left is of the fourth power of the step.
      constexpr double kStep = 3e-4;
      const Values a = moved(kStep), b = moved(-kStep), c = moved(2 * kStep), d = moved(-2 * kStep);
      ASSERT_EQ(tangents.size(), a.size());
      for (std::size_t r = 0; r < a.size(); ++r) {
        double largest = 0;
        for (const double value : tangents[r].data) largest = std::max(largest, std::abs(value));
        EXPECT_GT(largest, 0) << op.name << ", operand " << alone;
        for (std::size_t i = 0; i < a[r].data.size(); ++i) {
          const double one = (a[r].data[i] - b[r].data[i]) / (2 * kStep);
          const double two = (c[r].data[i] - d[r].data[i]) / (4 * kStep);
          ASSERT_NEAR(tangents[r].data[i], (4 * one - two) / 3, 1e-6 * largest)
              << op.name << ", operand " << alone << ", element " << i;
        }
      }
    }
  }
}

std::vector<const ir::OpDescriptor*> with_tangents() {
  std::vector<const ir::OpDescriptor*> found;
  for (const ir::OpDescriptor* op : ops::all_ops()) {
    if (op->tangent != nullptr && !op->straight_through) found.push_back(op);
  }
  return found;
}

INSTANTIATE_TEST_SUITE_P(All, TangentBattery, testing::ValuesIn(with_tangents()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace hone
