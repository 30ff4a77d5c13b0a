// Ops and their gradients against PyTorch: tests/golden/gradient, made by its make.py.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "examples.h"
#include "ir/interpret.h"
#include "ops/registry.h"

namespace hone {
namespace {

using ir::Tensor;

// The formula of make.py.
Tensor values(const ir::Type& type, int seed) {
  Tensor tensor{type, {}};
  for (std::int64_t i = 0; i < type.elements(); ++i) {
    tensor.data.push_back(1.5 * std::sin(0.7 * static_cast<double>(i) + 1.9 * seed + 0.3));
  }
  return tensor;
}

ir::Attributes attributes_of(const nlohmann::json& object) {
  ir::Attributes attributes;
  for (const auto& [name, value] : object.items()) {
    if (value.is_boolean()) attributes.set(name, value.get<bool>());
    if (value.is_number_integer()) attributes.set(name, value.get<std::int64_t>());
    if (value.is_number_float()) attributes.set(name, value.get<double>());
    if (value.is_array()) attributes.set(name, value.get<ir::Integers>());
  }
  return attributes;
}

class Answers {
 public:
  explicit Answers(std::string bytes) : bytes_(std::move(bytes)) {}

  // The next ones, and compares them: PyTorch computed in double and stored f32.
  void expect(const Tensor& found, const std::string& what) {
    const std::size_t count = found.data.size();
    ASSERT_LE(at_ + count * sizeof(float), bytes_.size()) << what;
    std::vector<float> expected(count);
    std::memcpy(expected.data(), bytes_.data() + at_, count * sizeof(float));
    at_ += count * sizeof(float);
    double largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(double{value}));
    ASSERT_GT(largest, 0) << what;
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_NEAR(found.data[i], expected[i], 1e-7 * largest) << what << ", element " << i;
    }
  }
  bool finished() const { return at_ == bytes_.size(); }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

std::vector<Tensor> run(const ir::Graph& graph, const std::map<std::string, Tensor>& sources) {
  const auto found = ir::interpret(graph, [&](const ir::Operation& source, const ir::Type&) {
    return Result<Tensor>(sources.at(std::string(source.attributes.text("name"))));
  });
  EXPECT_TRUE(found.ok()) << found.error().text();
  return found.ok() ? *found : std::vector<Tensor>{};
}

TEST(Golden, ResultsAndGradientsOfPyTorch) {
  const std::string folder = std::string(HONE_SOURCE_DIR) + "/tests/golden/gradient/";
  const auto text = read_file(folder + "cases.json");
  const auto bytes = read_file(folder + "cases.bin");
  ASSERT_TRUE(text.ok() && bytes.ok());
  Answers answers(*bytes);
  const auto cases = nlohmann::json::parse(*text)["cases"];
  ASSERT_GE(cases.size(), 15U);
  for (const auto& one : cases) {
    const std::string name = one["op"];
    const ir::OpDescriptor* op = ops::find_op(name);
    ASSERT_NE(op, nullptr) << name;
    ASSERT_NE(op->gradient, nullptr) << name;
    ir::Example example;
    example.attributes = attributes_of(one["attributes"]);
    std::map<std::string, Tensor> sources;
    std::vector<ir::Type> types;
    const auto asked = one["wanted"].get<std::vector<std::size_t>>();
    std::vector<std::uint8_t> wanted;
    for (std::size_t i = 0; i < one["shapes"].size(); ++i) {
      const bool given = one["integers"].contains(std::to_string(i));
      const ir::Type type =
          ir::tensor_type(one["shapes"][i].get<ir::Shape>(), given ? DType::kI32 : DType::kF32);
      Tensor operand = values(type, static_cast<int>(i) + 1);
      if (given) operand.data = one["integers"][std::to_string(i)].get<std::vector<double>>();
      sources["operand" + std::to_string(i)] = operand;
      example.operands.push_back({type});
      types.push_back(type);
      wanted.push_back(std::ranges::count(asked, i) > 0 ? 1 : 0);
    }
    const auto graph = testing_ops::graph_of(*op, example);
    ASSERT_TRUE(graph.ok()) << graph.error().text();
    const auto results = run(*graph, sources);
    ASSERT_FALSE(results.empty());
    answers.expect(results[0], name);
    sources["factor0"] = values(results[0].type, 17);
    const auto gradients = testing_ops::gradient_graph(*op, types, example.attributes, wanted);
    ASSERT_TRUE(gradients.ok()) << gradients.error().text();
    ASSERT_EQ(gradients->owners, asked) << name;
    const auto found = run(gradients->graph, sources);
    for (std::size_t k = 0; k < found.size(); ++k) {
      answers.expect(found[k],
                     name + ", gradient of operand " + std::to_string(gradients->owners[k]));
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_TRUE(answers.finished());
}

}  // namespace
}  // namespace hone
