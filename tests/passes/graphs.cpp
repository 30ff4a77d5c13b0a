// SPDX-License-Identifier: Apache-2.0
#include "graphs.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/random.h"
#include "kernels/packed.h"
#include "ops/registry.h"
#include "quant/codec.h"
#include "runtime/execute.h"

namespace hone::testing_graphs {
namespace {

using ir::Attributes;
using ir::ValueId;

class Generator {
 public:
  Generator(std::uint64_t seed, int size)
      : random_(seed), builder_(fmt::format("random{}", seed), ops::find_op), size_(size) {
    rows_ = 1 + random_.below(6);
  }

  ir::Graph make() {
    positions_ = builder_.source("input", ir::tensor_type({rows_}, DType::kI32),
                                 {{"name", std::string("positions")}});
    values_.push_back(input(64));
    values_.push_back(input(128));
    while (made_ < size_) grow();
    // The last values leave the graph: computed ones, because inputs cannot pass through.
    const std::size_t computed = values_.size() - 2;
    for (std::size_t i = 0; i < std::min<std::size_t>(3, computed); ++i) {
      const ValueId out = builder_.emit("scale", {values_[values_.size() - 1 - i]},
                                        {{"factor", 1.0 + 0.5 * static_cast<double>(i)}});
      // Behind a norm, so that the outputs of a deep graph stay in a range.
      builder_.output(norm(out), fmt::format("out{}", i));
    }
    auto graph = builder_.finish();
    if (!graph) std::fputs(graph.error().text().c_str(), stderr);
    return graph ? *std::move(graph) : ir::Graph{};
  }

 private:
  std::string name(const char* kind) { return fmt::format("{}{}", kind, sources_++); }
  ValueId input(std::int64_t columns) {
    return builder_.source("input", ir::tensor_type({rows_, columns}), {{"name", name("x")}});
  }
  ValueId vector(std::int64_t size) {
    return builder_.source("parameter", ir::tensor_type({size}), {{"name", name("v")}});
  }
  ValueId weight(std::int64_t rows, std::int64_t columns) {
    constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kQ4_1,
                                DType::kQ4_0, DType::kQ8_0, DType::kQ5_1};
    return builder_.source("parameter", ir::tensor_type({rows, columns}, kTypes[random_.below(6)]),
                           {{"name", name("w")}});
  }
  std::int64_t columns(ValueId id) { return builder_.type(id).columns(); }
  ValueId any() { return values_[random_.below(static_cast<std::uint32_t>(values_.size()))]; }
  // Another value of the same shape, perhaps the same one.
  ValueId like(ValueId id) {
    for (int i = 0; i < 20; ++i) {
      const ValueId other = any();
      if (columns(other) == columns(id)) return other;
    }
    return id;
  }
  ValueId emit(std::string_view op, std::vector<ValueId> operands, Attributes attributes = {}) {
    ++made_;
    return builder_.emit(op, std::move(operands), std::move(attributes));
  }
  void keep(ValueId id) { values_.push_back(id); }
  ValueId norm(ValueId x) { return emit("rms_norm", {x, vector(columns(x))}, {{"epsilon", 1e-5}}); }
  ValueId matmul(ValueId x, std::int64_t to) { return emit("matmul", {x, weight(to, columns(x))}); }
  std::int64_t some_columns() { return random_.below(2) == 0 ? 64 : 128; }

  void gate(ValueId x) {
    const std::int64_t to = some_columns();
    const ValueId w1 = weight(to, columns(x));
    // Of the same type, as the fusion wants it; sometimes not.
    const ir::Type type = builder_.type(w1);
    const ValueId w2 = random_.below(4) == 0
                           ? weight(to, columns(x))
                           : builder_.source("parameter", type, {{"name", name("w")}});
    const ValueId activated =
        emit(random_.below(2) == 0 ? "silu" : "gelu", {emit("matmul", {x, w1})});
    const ValueId up = emit("matmul", {x, w2});
    const bool swapped = random_.below(2) == 0;
    keep(emit("multiply", swapped ? std::vector{up, activated} : std::vector{activated, up}));
    if (random_.below(4) == 0) keep(activated);
  }

  void group(ValueId x) {
    const ValueId shared = random_.below(2) == 0 ? norm(x) : x;
    const std::uint32_t count = 2 + random_.below(3);
    for (std::uint32_t i = 0; i < count; ++i) keep(matmul(shared, some_columns()));
    if (random_.below(3) == 0) keep(emit("add", {shared, like(shared)}));
  }

  void constants(ValueId x) {
    ir::Numbers numbers;
    for (std::int64_t i = 0; i < columns(x); ++i) {
      numbers.push_back(static_cast<double>(static_cast<float>(random_.normal())));
    }
    const ValueId constant =
        emit("constant", {}, {{"shape", ir::Integers{columns(x)}}, {"values", numbers}});
    const ValueId scaled = emit("scale", {constant}, {{"factor", 0.5}});
    const ValueId sum = emit("add", {scaled, constant});
    keep(emit("add", {x, sum}));
  }

  // The same twice: what cse finds.
  void twins(ValueId x) {
    const ValueId a = emit("silu", {x});
    const ValueId b = emit("silu", {x});
    keep(emit("add", {a, b}));
    emit("gelu", {x});  // used by nobody
  }

  void heads(ValueId x) {
    const std::int64_t wide = columns(x);
    const ValueId split = emit("reshape", {x}, {{"shape", ir::Integers{rows_ * wide / 32, 32}}});
    const ValueId again =
        emit("reshape", {split}, {{"shape", ir::Integers{rows_ * wide / 16, 16}}});
    const ValueId normed = norm(random_.below(2) == 0 ? split : again);
    keep(emit("reshape", {normed}, {{"shape", ir::Integers{rows_, wide}}}));
  }

  void rope(ValueId x) {
    const ValueId table =
        emit("rope_table", {positions_}, {{"dims", std::int64_t{32}}, {"theta", 10000.0}});
    Attributes attributes{{"head_size", std::int64_t{32}}};
    if (random_.below(2) == 0) attributes.set("interleaved", true);
    keep(emit("rope", {x, table}, attributes));
  }

  // The change of a product along a random direction of its weight.
  void signs(ValueId x) {
    const ValueId key =
        builder_.source("input", ir::tensor_type({4}, DType::kI32), {{"name", name("key")}});
    const ValueId drawn = emit("random_signs", {key},
                               {{"tensor", std::int64_t{random_.below(9)}},
                                {"rows", some_columns()},
                                {"columns", columns(x)}});
    keep(emit("scale", {emit("matmul", {x, drawn})}, {{"factor", 0.0625}}));
  }

  void grow() {
    const ValueId x = any();
    switch (random_.below(16)) {
      case 0: keep(emit("add", {x, like(x)})); break;
      case 1: keep(emit("multiply", {norm(x), like(x)})); break;
      case 2: keep(emit("scale", {x}, {{"factor", random_.below(2) == 0 ? 1.0 : 0.25}})); break;
      case 3: keep(emit("silu", {x})); break;
      case 4: keep(emit("tanh_cap", {x}, {{"cap", 5.0}})); break;
      case 5: keep(norm(x)); break;
      case 6: keep(matmul(norm(x), some_columns())); break;
      // Residual streams: a branch added on either side.
      case 7: keep(emit("add", {x, matmul(norm(x), columns(x))})); break;
      case 8: keep(emit("add", {matmul(like(x), columns(x)), x})); break;
      case 9: keep(emit("add", {x, norm(like(x))})); break;
      case 10: gate(norm(x)); break;
      case 11: group(x); break;
      case 12: random_.below(2) == 0 ? constants(x) : twins(x); break;
      case 13: heads(x); break;
      case 14: signs(x); break;
      default:
        if (random_.below(2) == 0) {
          rope(x);
        } else if (columns(x) == 128) {
          keep(emit("columns", {x}, {{"start", std::int64_t{32}}, {"count", std::int64_t{64}}}));
        } else {
          keep(emit("softmax", {x}));
        }
    }
  }

  Random random_;
  ir::Builder builder_;
  int size_;
  int made_ = 0;
  int sources_ = 0;
  std::int64_t rows_ = 1;
  ValueId positions_ = 0;
  std::vector<ValueId> values_;
};

std::uint64_t seed_of(std::string_view name) {
  std::uint64_t seed = 0xcbf29ce484222325u;
  for (const char c : name) seed = (seed ^ static_cast<std::uint8_t>(c)) * 0x100000001b3u;
  return seed;
}

std::vector<std::byte> bytes_of_slot(const runtime::Slot& slot) {
  Random random(seed_of(slot.name));
  const ir::Type& type = slot.type;
  const auto elements = static_cast<std::size_t>(type.elements());
  if (type.dtype == DType::kI32) {
    std::vector<std::int32_t> integers(elements);
    for (std::size_t i = 0; i < elements; ++i) integers[i] = static_cast<std::int32_t>(i * 3 + 1);
    const auto raw = std::as_bytes(std::span(integers));
    return {raw.begin(), raw.end()};
  }
  std::vector<float> numbers(elements);
  // Weights that keep the size of what they multiply.
  const float size =
      slot.name[0] == 'w' ? 1.0f / std::sqrt(static_cast<float>(type.columns())) : 1.0f;
  for (float& number : numbers) number = random.normal() * size;
  auto bytes = quant::quantize(type.dtype, numbers);
  if (!bytes) return {};
  if (type.layout != ir::Layout::kRows16) return *std::move(bytes);
  const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
  std::vector<std::byte> packed(static_cast<std::size_t>(layout->total_bytes));
  kernels::pack_panels(*layout, *bytes, 0, layout->panels(), packed);
  return packed;
}

}  // namespace

ir::Graph random_graph(std::uint64_t seed, int size) { return Generator(seed, size).make(); }

Result<std::vector<std::vector<float>>> run_graph(const ir::Graph& graph,
                                                  const passes::LowerOptions& options) {
  auto program = passes::lower(graph, options);
  if (!program) return program.error();
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::span<const std::byte>> inputs;
  std::vector<runtime::Weight> weights;
  std::vector<const runtime::Weight*> pointers;
  memory.reserve(program->inputs.size() + program->parameters.size());
  for (const auto& slot : program->inputs)
    inputs.push_back(memory.emplace_back(bytes_of_slot(slot)));
  for (const auto& slot : program->parameters) {
    weights.push_back({memory.emplace_back(bytes_of_slot(slot))});
  }
  for (const auto& weight : weights) pointers.push_back(&weight);
  ThreadPool pool(options.threads);
  runtime::Workspace workspace;
  (void)runtime::execute(*program, {pointers, inputs, {}}, pool, workspace);
  std::vector<std::vector<float>> out;
  for (std::size_t i = 0; i < program->outputs.size(); ++i) {
    const auto raw = runtime::output(*program, workspace, i);
    out.emplace_back(raw.begin(), raw.begin() + program->outputs[i].type.elements());
  }
  return out;
}

std::string difference(const std::vector<std::vector<float>>& a,
                       const std::vector<std::vector<float>>& b, double tolerance) {
  if (a.size() != b.size()) return "different numbers of outputs";
  std::string worst;
  double worst_gap = 0;
  for (std::size_t o = 0; o < a.size(); ++o) {
    if (a[o].size() != b[o].size()) return fmt::format("output {} has another size", o);
    double largest = 0;
    for (const float value : a[o]) largest = std::max(largest, std::abs(double{value}));
    const double epsilon = 0x1p-23 * largest;
    for (std::size_t i = 0; i < a[o].size(); ++i) {
      const bool same = std::memcmp(&a[o][i], &b[o][i], sizeof(float)) == 0;
      const double gap = std::abs(double{a[o][i]} - double{b[o][i]});
      const bool near = tolerance > 0 && gap <= tolerance * epsilon;  // never for a NaN
      if (same || near || (!worst.empty() && gap <= worst_gap)) continue;
      worst_gap = gap;
      worst = fmt::format("output {} element {}: {} and {}, {:.3g} epsilons of the largest", o, i,
                          a[o][i], b[o][i], gap / epsilon);
    }
  }
  return worst;
}

}  // namespace hone::testing_graphs
