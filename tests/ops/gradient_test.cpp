// The battery of gradient rules: every rule, on its op's examples, against central differences in
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

using ir::Example;
using ir::Tensor;
using ir::ValueId;

// Operands that count as constants though they are f32: angles come from positions; the gradient of
// output_loss to its matrix is of the plain sum alone (tests/gradient has it).
bool is_constant(const ir::OpDescriptor& op, std::size_t operand) {
  return (op.name == "rope" && operand == 1) || (op.name == "output_loss" && operand != 0) ||
         (op.name == "matmul_scaled" && operand == 1);
}

using Values = std::vector<Tensor>;

Values interpret(const ir::Graph& graph, const std::map<std::string, const Tensor*>& sources) {
  auto outputs = ir::interpret(graph, [&](const ir::Operation& source, const ir::Type&) {
    return Result<Tensor>(*sources.at(std::string(source.attributes.text("name"))));
  });
  EXPECT_TRUE(outputs.ok()) << outputs.error().text();
  return outputs.ok() ? *outputs : Values{};
}

struct Case {
  const ir::OpDescriptor& op;
  const Example& example;
  ir::Graph forward;
  Values operands;
  Values factors;  // the loss is the sum of results times factors

  std::map<std::string, const Tensor*> sources(const Values& at) const {
    std::map<std::string, const Tensor*> named;
    for (std::size_t i = 0; i < at.size(); ++i) named["operand" + std::to_string(i)] = &at[i];
    for (std::size_t i = 0; i < factors.size(); ++i) {
      named["factor" + std::to_string(i)] = &factors[i];
    }
    return named;
  }

  double loss(const Values& at) const {
    const Values results = interpret(forward, sources(at));
    double sum = 0;
    for (std::size_t r = 0; r < results.size(); ++r) {
      if (testing_ops::is_auxiliary(op, r)) continue;
      for (std::size_t i = 0; i < results[r].data.size(); ++i) {
        sum += results[r].data[i] * factors[r].data[i];
      }
    }
    return sum;
  }
};

// The rule's graph, run by the interpreter: gradient of operand i, empty where the rule gives none.
Values gradients_of(const Case& test, const std::vector<std::uint8_t>& wanted) {
  std::vector<ir::Type> types;
  for (const auto& operand : test.example.operands) types.push_back(operand.type);
  const auto made = testing_ops::gradient_graph(test.op, types, test.example.attributes, wanted);
  EXPECT_TRUE(made.ok()) << made.error().text();
  if (!made.ok()) return {};
  EXPECT_TRUE(ir::verify(made->graph).ok());
  const Values values = interpret(made->graph, test.sources(test.operands));
  Values gradients(types.size());
  for (std::size_t k = 0; k < made->owners.size(); ++k) {
    const std::size_t owner = made->owners[k];
    EXPECT_NE(wanted[owner], 0) << "a gradient that nobody asked for, of operand " << owner;
    EXPECT_EQ(values[k].type, types[owner]) << "operand " << owner;
    gradients[owner] = values[k];
  }
  return gradients;
}

class GradientBattery : public testing::TestWithParam<const ir::OpDescriptor*> {
 protected:
  static std::vector<Case> cases() {
    const ir::OpDescriptor& op = *GetParam();
    std::vector<Case> all;
    static std::map<std::string_view, std::vector<Example>> kept;
    auto& examples = kept[op.name];
    examples = op.examples();
    Random random(23);
    for (const Example& example : examples) {
      auto graph = testing_ops::graph_of(op, example);
      EXPECT_TRUE(graph.ok());
      Case test{op, example, *graph, {}, {}};
      for (const auto& operand : example.operands) {
        test.operands.push_back(testing_ops::draw(operand, random));
      }
      for (const ValueId id : graph->outputs) {
        test.factors.push_back(testing_ops::draw({graph->type(id)}, random));
      }
      all.push_back(std::move(test));
    }
    return all;
  }

  static std::vector<std::uint8_t> differentiable(const Case& test) {
    std::vector<std::uint8_t> wanted;
    for (std::size_t i = 0; i < test.operands.size(); ++i) {
      const bool is_real = test.operands[i].type.dtype == DType::kF32;
      wanted.push_back(is_real && !is_constant(test.op, i) ? 1 : 0);
    }
    return wanted;
  }
};

TEST_P(GradientBattery, EqualsCentralDifferences) {
  for (const Case& test : cases()) {
    if (test.example.attributes.flag("losses_only")) continue;  // it has given up on gradients
    // A staircase, whose rule counts rounding as the identity.
    if (test.example.attributes.find("rounding") != nullptr) continue;
    const std::vector<std::uint8_t> wanted = differentiable(test);
    const Values gradients = gradients_of(test, wanted);
    ASSERT_EQ(gradients.size(), wanted.size());
    Random random(29);
    for (std::size_t operand = 0; operand < wanted.size(); ++operand) {
      if (wanted[operand] == 0) continue;
      const std::vector<double>& gradient = gradients[operand].data;
      ASSERT_EQ(gradient.size(), test.operands[operand].data.size()) << "operand " << operand;
      std::vector<double> direction(gradient.size());
      double square = 0;
      for (double& u : direction) {
        u = random.normal();
        square += u * u;
      }
      for (double& u : direction) u /= std::sqrt(square);
      const auto slope = [&](double h) {
        Values ahead = test.operands;
        Values behind = test.operands;
        for (std::size_t i = 0; i < direction.size(); ++i) {
          ahead[operand].data[i] += h * direction[i];
          behind[operand].data[i] -= h * direction[i];
        }
        return (test.loss(ahead) - test.loss(behind)) / (2 * h);
      };
      // Richardson's extrapolation takes the h^2 term away: what is left is the h^4 term, 1e-14 for
      // a step of a 3,000th, and rounding, 1e-16 / h of the loss.
      constexpr double kStep = 3e-4;
      const double measured = (4 * slope(kStep) - slope(2 * kStep)) / 3;
      double expected = 0;
      double size = 0;
      for (std::size_t i = 0; i < direction.size(); ++i) {
        expected += gradient[i] * direction[i];
        size += std::abs(gradient[i] * direction[i]);
      }
      EXPECT_GT(size, 0) << "operand " << operand;
      // Terms cancel in the sum, so what is small is compared with the size of the terms.
      EXPECT_NEAR(measured, expected, 1e-6 * std::max(std::abs(expected), 0.1 * size))
          << test.op.name << ", operand " << operand;
    }
  }
}

// A rule that is asked for less gives the same of what is left.
TEST_P(GradientBattery, GivesWhatIsWanted) {
  for (const Case& test : cases()) {
    const std::vector<std::uint8_t> all = differentiable(test);
    const Values together = gradients_of(test, all);
    for (std::size_t operand = 0; operand < all.size(); ++operand) {
      if (all[operand] == 0) continue;
      std::vector<std::uint8_t> one(all.size(), 0);
      one[operand] = 1;
      const Values alone = gradients_of(test, one);
      for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_EQ(alone[i].data, i == operand ? together[i].data : std::vector<double>{})
            << test.op.name << ", operand " << i;
      }
    }
  }
}

TEST(StraightThrough, HandsTheGradientOn) {
  int tested = 0;
  for (const ir::OpDescriptor* op : ops::all_ops()) {
    if (op->gradient == nullptr || !op->straight_through) continue;
    for (const Example& example : op->examples()) {
      if (example.operands.size() != 1) continue;
      ir::Builder builder("gradient", ops::find_op);
      const ir::Type& type = example.operands[0].type;
      const ValueId x = builder.source("input", type, {{"name", std::string("x")}});
      const ValueId dy = builder.source("input", type, {{"name", std::string("dy")}});
      const ValueId y = builder.emit(op->name, {x}, example.attributes);
      const ir::Emit emit = [&](std::string_view, std::vector<ValueId>, ir::Attributes) {
        ADD_FAILURE() << op->name << " makes something";
        return std::vector<ValueId>{};
      };
      const std::uint8_t wanted = 1;
      EXPECT_EQ(
          op->gradient(
              {{&x, 1}, {&type, 1}, {&y, 1}, {&dy, 1}, {&wanted, 1}, example.attributes, emit}),
          std::vector<ValueId>{dy})
          << op->name;
      ++tested;
    }
  }
  EXPECT_GE(tested, 3);
}

std::vector<const ir::OpDescriptor*> with_gradients() {
  std::vector<const ir::OpDescriptor*> found;
  for (const ir::OpDescriptor* op : ops::all_ops()) {
    if (op->gradient != nullptr && !op->straight_through) found.push_back(op);
  }
  return found;
}

INSTANTIATE_TEST_SUITE_P(All, GradientBattery, testing::ValuesIn(with_gradients()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace hone
