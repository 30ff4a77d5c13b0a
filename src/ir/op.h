// What an op is: the descriptor that every op gives of itself. The graph, the passes, the printer
// and the interpreter work through descriptors and know no single op.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "ir/attribute.h"
#include "ir/type.h"

namespace hone::ir {

// A value of the interpreter: every element as a double, whatever its dtype, row-major. Quantized
// weights come dequantized; integers are exact up to 2^53.
struct Tensor {
  Type type;
  std::vector<double> data;
};

// What an op costs once: multiply-adds count as two operations; bytes are those that must move
// through memory at least once.
struct Cost {
  double operations = 0;
  double bytes = 0;
};

// How the elements of an example's operand are drawn.
enum class Fill : std::uint8_t { kNormal, kPositive, kIndex, kIota };

// One operand of a test case: its type, how it is filled, and for kIndex the exclusive bound; or
// the values themselves.
struct ExampleOperand {
  Type type;
  Fill fill = Fill::kNormal;
  std::int64_t bound = 0;
  std::vector<double> values = {};  // given: nothing is drawn
};

// A test case that an op brings along: the battery in tests/ops runs it through the printer, the
// parser, the reference and every compiled form.
struct Example {
  std::vector<ExampleOperand> operands;
  Attributes attributes;
  // Bound of |compiled - reference| as a multiple of f32 epsilon times the largest |reference|:
  // grows with the length of the sums that the op does.
  double tolerance = 64;
};

struct OpDescriptor;

// What a reference evaluation sees. Results are allocated and zero.
struct Evaluation {
  const Attributes& attributes;
  std::span<const Tensor* const> operands;
  std::span<Tensor> results;
};

// Emits an operation into a graph under construction; expansions are written with it.
using Emit = std::function<std::vector<std::int32_t>(
    std::string_view op, std::vector<std::int32_t> operands, Attributes attributes)>;

// What a gradient rule sees: ids are of values in the graph under construction. The loss is a
// scalar; the gradient of a value has the value's shape, in f32.
struct Differentiation {
  std::span<const std::int32_t> operands;
  std::span<const Type> types;  // of the operands
  std::span<const std::int32_t> results;
  std::span<const std::int32_t> gradients;  // of the results; kNoGradient where the loss has none
  std::span<const std::uint8_t> wanted;     // operands whose gradient is asked for: 1, else 0
  const Attributes& attributes;
  const Emit& emit;
};
inline constexpr std::int32_t kNoGradient = -1;

// What a tangent rule sees: how the operands change along one direction, value by value. The
// tangent of a value has the value's shape, in f32.
struct Linearization {
  std::span<const std::int32_t> operands;
  std::span<const Type> types;  // of the operands
  std::span<const std::int32_t> results;
  std::span<const std::int32_t> tangents;  // of the operands; kNoTangent where they do not change
  const Attributes& attributes;
  const Emit& emit;
};
inline constexpr std::int32_t kNoTangent = -1;

struct OpDescriptor {
  std::string_view name;     // "matmul"; printed as "hone.matmul"
  std::string_view summary;  // one sentence with shapes

  // Types of the results, or what is wrong with the operands.
  Result<std::vector<Type>> (*infer)(std::span<const Type> operands,
                                     const Attributes& attributes) = nullptr;
  // The slow and obviously right version; null for ops that bring values from outside.
  void (*evaluate)(const Evaluation& evaluation) = nullptr;
  Cost (*cost)(std::span<const Type> operands, std::span<const Type> results,
               const Attributes& attributes) = nullptr;
  std::vector<Example> (*examples)() = nullptr;
  // For a fused op, the small ops that it stands for; null for the others. Values in, values out.
  std::vector<std::int32_t> (*expand)(std::span<const std::int32_t> operands,
                                      std::span<const Type> types, const Attributes& attributes,
                                      const Emit& emit) = nullptr;

  // The gradients of the operands, one an operand: kNoGradient where it is not wanted or is zero.
  // Null: the op is constant to the loss, or cannot be differentiated.
  std::vector<std::int32_t> (*gradient)(const Differentiation& differentiation) = nullptr;

  // The tangents of the results, one a result: kNoTangent where it does not change. Called where
  // some operand has one. Null: the op cannot be differentiated forward.
  std::vector<std::int32_t> (*tangent)(const Linearization& at) = nullptr;

  // The rule counts rounding as the identity (Bengio et al. 2013): it is no derivative, and no
  // finite difference equals it.
  bool straight_through = false;

  // Properties, which passes ask for instead of listing ops.
  bool row_wise = false;  // row i of each result depends on row i of the row operands alone
  bool effect = false;    // writes state: keep it, keep its order, never merge it
  bool source = false;    // brings a value from outside: input, parameter, state
  bool alias = false;     // the result is the first operand's bytes under another type
  bool commutative = false;
};

// Looks an op up by name (without "hone."); null where there is none.
using OpLookup = std::function<const OpDescriptor*(std::string_view name)>;

// For type rules: an error that names the op and what it wanted.
Error type_error(std::string_view op, std::string_view expected, std::span<const Type> found);

}  // namespace hone::ir
