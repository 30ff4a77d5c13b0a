// SPDX-License-Identifier: Apache-2.0
#include "tune/product_timing.h"

#include <array>

#include "base/random.h"
#include "base/timing.h"
#include "ops/registry.h"

namespace hone::tune {

Result<std::vector<double>> seconds_of_product(ThreadPool& pool, const ProductShape& shape,
                                               const std::vector<Arithmetic>& arithmetics,
                                               std::int64_t calls) {
  Network network(pool);
  const auto build = [&]() -> Result<ir::Graph> {
    ir::Builder builder("product", ops::find_op);
    const ir::ValueId x = builder.source("input", ir::tensor_type({shape.tokens, shape.columns}),
                                         {{"name", std::string("x")}});
    const ir::ValueId w = builder.source("parameter", ir::tensor_type({shape.rows, shape.columns}),
                                         {{"name", std::string("w")}});
    builder.output(builder.emit("matmul", {x, w}), "y");
    return builder.finish();
  };
  const auto graph = build();
  if (!graph) return graph.error();
  HONE_RETURN_IF_ERROR(network.add_all(*graph, 1));
  Random random(2);
  std::vector<float> x(static_cast<std::size_t>(shape.tokens * shape.columns));
  for (float& value : x) value = random.normal();
  const std::array inputs = {Network::Input{"x", std::as_bytes(std::span(x))}};
  std::vector<std::vector<double>> seconds(arithmetics.size());
  for (std::int64_t call = 0; call <= calls; ++call) {
    for (std::size_t i = 0; i < arithmetics.size(); ++i) {
      const double begin = seconds_now();
      const auto outcome = network.run(arithmetics[i].name,
                                       {build, nullptr, arithmetics[i].after, {}, false}, inputs);
      if (!outcome) return outcome.error();
      if (call > 0) seconds[i].push_back(seconds_now() - begin);  // the first one compiles
    }
  }
  std::vector<double> medians;
  for (const auto& each : seconds) medians.push_back(median(each));
  return medians;
}

}  // namespace hone::tune
