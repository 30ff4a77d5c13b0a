// Training in low precision: rotations alone change no value, codes cost little, rotations make
// them cost less where something stands out, and the bits depend on nothing.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "graphs.h"
#include "ops/registry.h"
#include "passes/pass.h"
#include "passes/transform/gradient.h"
#include "passes/transform/qat.h"
#include "passes/transform/quantize_training.h"

namespace hone::testing_graphs {
namespace {

using passes::HaloOptions;
using passes::ScaleOf;

constexpr std::int64_t kTokens = 100;  // blocks of 64, 32 and 4
constexpr std::int64_t kColumns = 192;
constexpr std::int64_t kInner = 96;

// Two linear layers with an activation between them, and all gradients. `loud`: the factor of one
// column of what the first one reads, which its weight's column takes back.
ir::Graph training_graph(double loud = 1) {
  ir::Builder builder("training", ops::find_op);
  const auto source = [&](const char* op, const char* name, ir::Shape shape) {
    return builder.source(op, ir::tensor_type(std::move(shape)), {{"name", std::string(name)}});
  };
  const auto scaled = [&](ir::ValueId id, double by) {
    ir::Numbers row(kColumns, 1.0);
    row[7] = by;
    return builder.emit(
        "multiply",
        {id, builder.emit("constant", {}, {{"shape", ir::Integers{kColumns}}, {"values", row}})});
  };
  const ir::ValueId x = scaled(source("input", "x", {kTokens, kColumns}), loud);
  const ir::ValueId w1 = scaled(source("parameter", "w1", {kInner, kColumns}), 1 / loud);
  const ir::ValueId a = builder.emit("silu", {builder.emit("matmul", {x, w1})});
  const ir::ValueId b = builder.emit("matmul", {a, source("parameter", "w2", {kColumns, kInner})});
  builder.output(builder.emit("multiply", {b, b}), "loss");
  auto graph = builder.finish();
  if (graph) graph = passes::add_gradients(*graph, {"loss", {"x", "w1", "w2"}});
  EXPECT_TRUE(graph.ok()) << graph.error().text();
  return *std::move(graph);
}

std::vector<std::vector<float>> run(const Result<ir::Graph>& graph, int threads = 2,
                                    const kernels::KernelTable* table = nullptr) {
  EXPECT_TRUE(graph.ok()) << graph.error().text();
  EXPECT_TRUE(ir::verify(*graph).ok()) << ir::verify(*graph).error().text();
  passes::LowerOptions options;
  options.threads = threads;
  options.kernels = table;
  auto outputs = run_graph(*graph, options);
  EXPECT_TRUE(outputs.ok()) << outputs.error().text();
  return *std::move(outputs);
}

// |found - expected| / |expected| of an output.
double relative(const std::vector<float>& expected, const std::vector<float>& found) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = double{found[i]} - double{expected[i]};
    error += difference * difference;
    size += double{expected[i]} * double{expected[i]};
  }
  return std::sqrt(error / size);
}

std::vector<HaloOptions> every_form(std::int64_t bits) {
  std::vector<HaloOptions> all;
  for (const int level : {0, 1, 2}) {
    for (const ScaleOf scales : {ScaleOf::kTensor, ScaleOf::kRow}) {
      for (const bool rotated : {false, true}) all.push_back({level, scales, bits, rotated});
    }
  }
  return all;
}

std::string text(const HaloOptions& o) {
  return "level " + std::to_string(o.level) + (o.scales == ScaleOf::kRow ? ", rows" : ", tensor") +
         (o.rotated_backward ? ", rotated backward" : "");
}

// A rotation is orthogonal: what is left are the roundings of f32, some 20 additions more in every
// sum, two layers deep.
TEST(QuantizeTraining, WithoutRoundingEveryLevelGivesTheSame) {
  const ir::Graph graph = training_graph();
  const auto expected = run(graph);
  ASSERT_EQ(expected.size(), 4u);
  for (const HaloOptions& options : every_form(0)) {
    const auto changed = passes::quantize_training(graph, options);
    EXPECT_EQ(difference(expected, run(changed), 256), "") << text(options);
    int rotations = 0;
    for (const auto& operation : changed->operations) rotations += operation.is("hadamard") ? 1 : 0;
    EXPECT_EQ(rotations > 0, options.level > 0) << text(options);
  }
}

// A code is off by at most half a step of 1/127 of the largest: about 1 % of a normal tensor's size
// (largest 4 deviations: a step of 0.03, off by 0.009), in some products behind each other.
TEST(QuantizeTraining, CodesCostAFewHundredths) {
  const ir::Graph graph = training_graph();
  const auto expected = run(graph);
  for (const HaloOptions& options : every_form(8)) {
    const auto changed = passes::quantize_training(graph, options);
    ASSERT_TRUE(changed.ok());
    int products = 0, left = 0;
    for (const auto& operation : changed->operations) {
      products += operation.is("int8_product") ? 1 : 0;
      left += operation.is("matmul") || operation.is("matmul_back") || operation.is("matmul_outer")
                  ? 1
                  : 0;
    }
    EXPECT_EQ(products, 6) << text(options);
    EXPECT_EQ(left, 0) << text(options);
    const auto found = run(changed);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LT(relative(expected[i], found[i]), 0.08) << text(options) << ", output " << i;
      EXPECT_GT(relative(expected[i], found[i]), 1e-4) << text(options) << ", output " << i;
    }
  }
}

// One column 64 times as loud leaves the others 1 or 2 codes; spread over its block it does not.
TEST(QuantizeTraining, RotationsSpreadALoudColumn) {
  const ir::Graph graph = training_graph(64);
  const auto expected = run(graph);
  EXPECT_EQ(difference(run(training_graph()), expected, 0), "") << "a power of two is exact";
  const auto errors = [&](int level, bool rotated) {
    HaloOptions options;
    options.level = level;
    options.rotated_backward = rotated;
    const auto found = run(passes::quantize_training(graph, options));
    return std::pair(relative(expected[0], found[0]), relative(expected[2], found[2]));
  };
  const auto plain = errors(0, false), forward = errors(2, false), both = errors(2, true);
  EXPECT_LT(2 * forward.first, plain.first) << "the loss";
  EXPECT_LT(2 * both.second, plain.second) << "the gradient of w1";
}

TEST(QuantizeTraining, SameBitsOnEveryInstructionSetAndNumberOfThreads) {
  for (const HaloOptions& options : every_form(8)) {
    // Without the activation, whose exponential has other bits on other instruction sets.
    ir::Builder builder("products", ops::find_op);
    const auto source = [&](const char* op, const char* name, ir::Shape shape) {
      return builder.source(op, ir::tensor_type(std::move(shape)), {{"name", std::string(name)}});
    };
    const ir::ValueId x = source("input", "x", {kTokens, kColumns});
    const ir::ValueId dy = source("input", "dy", {kTokens, kInner});
    const ir::ValueId w = source("parameter", "w", {kInner, kColumns});
    builder.output(builder.emit("matmul", {x, w}), "y");
    builder.output(builder.emit("matmul_back", {dy, w}), "dx");
    builder.output(builder.emit("matmul_outer", {dy, x}), "dw");
    const auto changed = passes::quantize_training(*builder.finish(), options);
    const auto expected = run(changed, 1, kernels::available_kernels().front());
    for (const kernels::KernelTable* table : kernels::available_kernels()) {
      for (const int threads : {1, 2, 3}) {
        EXPECT_EQ(difference(expected, run(changed, threads, table), 0), "")
            << table->isa << ", " << threads << " threads, " << text(options);
      }
    }
  }
}

// Gradients through weights in blocks: codes that are made out of packed panels are those of the
// plain definition, on every instruction set and number of threads, and cost little.
TEST(QuantizeTraining, GradientsPassWeightsInBlocks) {
  constexpr std::int64_t kRows = 176, kWide = 288;  // 11 panels; two parts of 128 columns and one
  for (const DType dtype : {DType::kQ4_1, DType::kQ8_0, DType::kQ4_0}) {
    ir::Builder builder("frozen", ops::find_op);
    const ir::ValueId dy =
        builder.source("input", ir::tensor_type({kTokens, kRows}), {{"name", std::string("dy")}});
    const ir::ValueId w = builder.source("parameter", ir::tensor_type({kRows, kWide}, dtype),
                                         {{"name", std::string("w")}});
    builder.output(builder.emit("matmul_back", {dy, w}), "dx");
    const ir::Graph graph = *builder.finish();
    const auto changed = passes::quantize_training(graph, {});
    ASSERT_TRUE(changed.ok());
    const auto packed = passes::find_pass("layout")->run(*changed);
    ASSERT_TRUE(packed.ok());
    const auto expected = run(changed, 1, kernels::available_kernels().front());
    const double off = relative(run(graph)[0], expected[0]);
    EXPECT_LT(off, 0.02) << dtype_info(dtype).name;
    EXPECT_GT(off, 1e-4) << dtype_info(dtype).name;
    for (const kernels::KernelTable* table : kernels::available_kernels()) {
      for (const int threads : {1, 2, 3}) {
        EXPECT_EQ(difference(expected, run(packed, threads, table), 0), "")
            << table->isa << ", " << threads << " threads, " << dtype_info(dtype).name;
      }
    }
  }
}

// What int8_product computes is the product of what fake_quantize gives.
TEST(QuantizeTraining, CodesAreTheGridOfFakeQuantize) {
  ir::Builder builder("both", ops::find_op);
  const auto source = [&](const char* op, const char* name, ir::Shape shape) {
    return builder.source(op, ir::tensor_type(std::move(shape)), {{"name", std::string(name)}});
  };
  const ir::ValueId x = source("input", "x", {kTokens, kColumns});
  builder.output(builder.emit("matmul", {x, source("parameter", "w", {kInner, kColumns})}), "y");
  const ir::Graph graph = *builder.finish();
  for (const ScaleOf scales : {ScaleOf::kTensor, ScaleOf::kRow}) {
    const auto codes = passes::quantize_training(graph, {0, scales, 4});
    const auto grid = passes::add_qat(graph, {4, 4, scales == ScaleOf::kRow ? "row" : "tensor"});
    // A sum of 192 products of f32 against an exact one.
    EXPECT_EQ(difference(run(codes), run(grid), 192), "");
  }
}

TEST(QuantizeTraining, RefusesWhatIsNoForm) {
  const ir::Graph graph = training_graph();
  for (const HaloOptions& options :
       {HaloOptions{3}, HaloOptions{2, ScaleOf::kRow, 9}, HaloOptions{2, ScaleOf::kRow, 1},
        HaloOptions{2, ScaleOf::kTensor, 8, false, 48}}) {
    const auto changed = passes::quantize_training(graph, options);
    ASSERT_FALSE(changed.ok());
    EXPECT_EQ(changed.error().code, ErrorCode::kInvalidArgument);
  }
}

// Bits of 0 are the identity; the fewer there are, the farther from it.
TEST(Qat, ErrorGrowsWithFewerBits) {
  const ir::Graph graph = training_graph();
  const auto expected = run(graph);
  EXPECT_EQ(difference(expected, run(passes::add_qat(graph, {0, 0})), 0), "");
  for (const bool rotate : {false, true}) {
    double before = 0;
    for (const std::int64_t bits : {12, 8, 4, 2}) {
      passes::QatOptions options;
      options.weight_bits = options.activation_bits = bits;
      options.rotate = rotate;
      const double error = relative(expected[0], run(passes::add_qat(graph, options))[0]);
      EXPECT_GT(error, 2 * before) << bits << " bits";
      before = error;
    }
  }
  EXPECT_FALSE(passes::add_qat(graph, {1, 8}).ok());
  EXPECT_FALSE(passes::add_qat(graph, {4, 8, "column"}).ok());
}

// Products of numbers with 8 bits of mantissa: 2^-9 of each factor.
TEST(Bf16, CostsThousandths) {
  const ir::Graph graph = training_graph();
  const auto expected = run(graph);
  const auto found = run(passes::find_pass("bf16")->run(graph));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_LT(relative(expected[i], found[i]), 0.02) << "output " << i;
    EXPECT_GT(relative(expected[i], found[i]), 1e-4) << "output " << i;
  }
}

}  // namespace
}  // namespace hone::testing_graphs
