// Update rules against torch.optim and against the published formulas in double precision
// (tests/golden/optim/make.py).
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "optim/battery.h"

namespace hone::optim {
namespace {

using Json = nlohmann::ordered_json;

double largest_of(const std::vector<float>& values) {
  double largest = 0.0;
  for (const float value : values) largest = std::max(largest, std::abs(double{value}));
  return largest;
}

// How far rounding may take two right implementations apart. A step rounds the weights (2^-24 of
// the largest, on both sides) and its own change, a few units of 2^-24 of at most rate * change
// magnified by the condition of what makes it: products and roots of 6 x 6 matrices with a
// condition below 2^6 for the matrix rules.
double tolerance(const Json& c, double largest, std::int64_t step) {
  const double steps = static_cast<double>(step);
  const double rate = c["rate"];
  const std::string rule = c["rule"];
  if (c["low_precision"]) {
    // bfloat16 has 8 bits: five iterations of three products, each a rounding of 2^-9 of elements
    // below 1.2, steepened at most by the polynomial's slope 3.4445 at first.
    return steps * rate * 15.0 * 0x1p-9 * 1.2 + 1e-6;
  }
  const bool matrix_rule = rule == "muon" || rule == "shampoo" || rule == "soap";
  const double condition = matrix_rule ? 64.0 : 4.0;
  return steps * 0x1p-23 * (largest + condition * 4.0 * rate);
}

TEST(Golden, TrajectoriesFollowTheReference) {
  const auto text =
      read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/optim/trajectories.json");
  ASSERT_TRUE(text.ok()) << text.error().text();
  const Json golden = Json::parse(*text);
  ASSERT_GE(golden["cases"].size(), 30u);
  for (const Json& c : golden["cases"]) {
    SCOPED_TRACE(c["name"].get<std::string>() + ", " + c["problem"].get<std::string>());
    const Json& problem = golden["problems"][c["problem"].get<std::string>()];
    const UpdateRule* rule = find_rule(c["rule"].get<std::string>());
    ASSERT_NE(rule, nullptr);
    const std::string change = c["settings"];
    ASSERT_TRUE(Settings::parse(*rule, change).ok());
    Stepped tensor({rule, change}, {problem["rows"], problem["columns"]},
                   problem["start"].get<std::vector<float>>());
    tensor.weight_decay = c["decay"];
    for (const Json& gradient : problem["gradients"]) {
      tensor.step(gradient.get<std::vector<float>>(), c["rate"]);
      const auto expected = c["weights"].find(std::to_string(tensor.steps));
      if (expected == c["weights"].end()) continue;
      const auto weights = expected->get<std::vector<double>>();
      const double allowed = tolerance(c, largest_of(tensor.weights), tensor.steps);
      for (std::size_t i = 0; i < weights.size(); ++i) {
        ASSERT_NEAR(tensor.weights[i], weights[i], allowed)
            << "element " << i << " after step " << tensor.steps;
      }
    }
  }
}

}  // namespace
}  // namespace hone::optim
