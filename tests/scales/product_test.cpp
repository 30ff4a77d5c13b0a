// Products with scaled weights: every quantized type, layout and instruction set against the op's
// reference; factors of 1 give the bits of the plain product.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "ir/graph.h"
#include "kernels/registry.h"
#include "ops/registry.h"
#include "passes/lower/lower.h"
#include "passes/pass.h"
#include "quant/codec.h"
#include "quant/scales.h"
#include "runtime/execute.h"

namespace hone {
namespace {

using Values = std::vector<float>;

// What a graph's sources hold, by name: f32, and the file's bytes of the weight "w".
struct Case {
  DType dtype = DType::kQ4_1;
  std::int64_t tokens = 1, rows = 16, columns = 256;
  std::vector<std::byte> weight;
  std::map<std::string, Values> sources;

  Case(DType type, std::int64_t n, std::int64_t r, std::int64_t k, std::uint64_t seed)
      : dtype(type), tokens(n), rows(r), columns(k) {
    Random random(seed);
    const auto draw = [&](std::int64_t count, float size) {
      Values out(static_cast<std::size_t>(count));
      for (float& value : out) value = size * random.normal();
      return out;
    };
    weight = *quant::quantize(dtype, draw(rows * columns, 0.05F));
    // Codes times a power of two, 127 in every block: no quantizer has a choice.
    for (std::int64_t i = 0; i < tokens * columns; ++i) {
      const int code = i % 32 == 0 ? 127 : static_cast<int>(random.below(255)) - 127;
      sources["x"].push_back(static_cast<float>(code) * 0x1p-6F);
    }
    sources["dy"] = draw(tokens * rows, 1);
    sources["f"] = draw(rows * columns / group(), 0.3F);
  }
  std::int64_t group() const { return dtype_info(dtype).block; }
};

// `op` on the case's operands; x as int8 rows where `coded`.
ir::Graph graph_of(const Case& test, const std::string& op, bool coded, bool delta, bool packed) {
  ir::Builder builder("scaled", ops::find_op);
  const auto input = [&](const char* name, std::int64_t rows, std::int64_t columns) {
    return builder.source("input", ir::tensor_type({rows, columns}), {{"name", std::string(name)}});
  };
  const auto w = builder.source("parameter", ir::tensor_type({test.rows, test.columns}, test.dtype),
                                {{"name", std::string("w")}});
  auto x = input("x", test.tokens, test.columns);
  if (coded) x = builder.emit("quantize", {x});
  ir::Attributes attributes;
  if (delta) attributes.set("delta", true);
  ir::ValueId out = -1;
  if (op == "matmul") {
    out = builder.emit("matmul", {x, w});
  } else if (op == "dequantize") {
    out = builder.emit("dequantize", {x});
  } else if (op == "matmul_scaled_outer") {
    out = builder.emit(op, {input("dy", test.tokens, test.rows), x, w}, {{"group", test.group()}});
  } else {
    const auto rows = op == "matmul_scaled" ? x : input("dy", test.tokens, test.rows);
    const auto f = input("f", test.rows, test.columns / test.group());
    out = builder.emit(op, {rows, w, f}, attributes);
  }
  builder.output(out, "y");
  auto graph = builder.finish();
  EXPECT_TRUE(graph.ok()) << (graph.ok() ? "" : graph.error().text());
  if (graph && packed) graph = passes::find_pass("layout")->run(*graph);
  if (graph) graph = passes::find_pass("dce")->run(*graph);
  return graph ? *graph : ir::Graph{};
}

Values run(const Case& test, const ir::Graph& graph, const passes::LowerOptions& options) {
  const auto program = passes::lower(graph, options);
  EXPECT_TRUE(program.ok()) << (program.ok() ? "" : program.error().text());
  if (!program) return {};
  std::vector<std::span<const std::byte>> inputs;
  for (const auto& slot : program->inputs) {
    inputs.push_back(std::as_bytes(std::span(test.sources.at(slot.name))));
  }
  std::vector<std::byte> packed;
  runtime::Weight weight{test.weight};
  std::vector<const runtime::Weight*> weights;
  for (const auto& slot : program->parameters) {
    if (slot.type.layout == ir::Layout::kRows16) {
      const auto layout = *kernels::packed_layout(test.dtype, test.rows, test.columns);
      packed.resize(static_cast<std::size_t>(layout.total_bytes));
      kernels::pack_panels(layout, test.weight, 0, layout.panels(), packed);
      weight.bytes = packed;
    }
    weights.push_back(&weight);
  }
  ThreadPool pool(options.threads);
  runtime::Workspace workspace;
  EXPECT_TRUE(runtime::execute(*program, {weights, inputs, {}}, pool, workspace).ok());
  const auto out = runtime::output(*program, workspace, 0);
  return {out.begin(), out.end()};
}

passes::LowerOptions how(const kernels::KernelTable* table, int threads) {
  passes::LowerOptions options;
  options.kernels = table;
  options.threads = threads;
  return options;
}

class ScaledProduct : public testing::TestWithParam<DType> {};

TEST_P(ScaledProduct, EqualsItsReference) {
  std::uint64_t seed = 1;
  for (const std::int64_t tokens : {1, 3, 21, 150}) {
    const Case test(GetParam(), tokens, tokens == 21 ? 35 : 48, tokens == 3 ? 1280 : 256, ++seed);
    for (const std::string op : {"matmul_scaled", "matmul_scaled_back", "matmul_scaled_outer"}) {
      for (const bool coded : {false, true}) {
        if (coded && op != "matmul_scaled") continue;
        for (const bool delta : {false, true}) {
          passes::LowerOptions slow = how(&kernels::kernels(), 1);
          slow.reference = true;
          const Values expected = run(test, graph_of(test, op, coded, delta, false), slow);
          float largest = 0;
          for (const float value : expected) largest = std::max(largest, std::abs(value));
          // A chain of f32 sums over K columns, R rows or N tokens and 32 columns; of int8 a
          // block's product is rounded once, and a scale to 22 bits.
          const double bound = 512 * 0x1p-24 * double{largest};
          for (const kernels::KernelTable* table : kernels::available_kernels()) {
            for (const bool packed : {false, true}) {
              const ir::Graph graph = graph_of(test, op, coded, delta, packed);
              const Values alone = run(test, graph, how(table, 1));
              ASSERT_EQ(alone.size(), expected.size());
              for (std::size_t i = 0; i < alone.size(); ++i) {
                ASSERT_NEAR(alone[i], expected[i], bound)
                    << op << " element " << i << " of " << tokens << " tokens, coded " << coded
                    << ", delta " << delta << ", packed " << packed << ", " << table->isa;
              }
              EXPECT_EQ(run(test, graph, how(table, 3)), alone) << op << ", other bits on threads";
            }
          }
        }
      }
    }
  }
}

// F = 0 multiplies scales by 1: nothing rounds.
TEST_P(ScaledProduct, NoChangeHasTheBitsOfThePlainProduct) {
  for (const std::int64_t tokens : {1, 6, 40}) {
    Case test(GetParam(), tokens, 40, 1280, 9);
    std::ranges::fill(test.sources["f"], 0.0F);
    for (const kernels::KernelTable* table : kernels::available_kernels()) {
      const Values plain = run(test, graph_of(test, "matmul", true, false, true), how(table, 2));
      const Values scaled =
          run(test, graph_of(test, "matmul_scaled", true, false, true), how(table, 2));
      EXPECT_EQ(scaled, plain) << table->isa << ", " << tokens << " tokens";
    }
  }
}

// Of a file with these scales the plain product gives what the factors gave, but for f16.
TEST_P(ScaledProduct, ComesNearTheWrittenScales) {
  Case test(GetParam(), 5, 48, 256, 4);
  const Values beside =
      run(test, graph_of(test, "matmul_scaled", true, false, true), how(&kernels::kernels(), 1));
  std::vector<std::byte> written(test.weight.size());
  quant::multiply_scales(test.dtype, quant::ScalePart::kBoth, test.weight, test.sources["f"],
                         written);
  test.weight = written;
  const Values after =
      run(test, graph_of(test, "matmul", true, false, true), how(&kernels::kernels(), 1));
  double error = 0, size = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    error += std::pow(double{after[i]} - double{beside[i]}, 2);
    size += std::pow(double{beside[i]}, 2);
  }
  EXPECT_GT(size, 0);
  // Scale and minimum cancel for the most part: their roundings do not.
  EXPECT_LT(std::sqrt(error / size), 4 * 0x1p-11);
}

TEST(Dequantize, GivesScaleTimesCode) {
  const Case test(DType::kQ4_1, 7, 16, 96, 3);
  passes::LowerOptions slow = how(&kernels::kernels(), 1);
  slow.reference = true;
  const ir::Graph graph = graph_of(test, "dequantize", true, false, false);
  EXPECT_EQ(run(test, graph, how(&kernels::kernels(), 2)), run(test, graph, slow));
}

INSTANTIATE_TEST_SUITE_P(All, ScaledProduct,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ8_0, DType::kIQ4_NL, DType::kQ2_K, DType::kQ3_K,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

}  // namespace
}  // namespace hone
