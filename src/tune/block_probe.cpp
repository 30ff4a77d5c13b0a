// SPDX-License-Identifier: Apache-2.0
#include "tune/block_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "ops/registry.h"
#include "passes/pass.h"
#include "passes/transform/products.h"

namespace hone::tune {
namespace {

using Values = std::vector<float>;

// What the norm with this weight reads; -1 where there is none.
ir::ValueId read_by_norm(const ir::Graph& graph, const std::string& weight) {
  for (const ir::Operation& operation : graph.operations) {
    if (!operation.is("rms_norm")) continue;
    const ir::Operation& source = graph.producer(operation.operands[1]);
    if (source.is("parameter") && source.attributes.text("name") == weight) {
      return operation.operands[0];
    }
  }
  return -1;
}

std::string norm_of(std::int64_t layer, std::int64_t layers) {
  return layer == layers ? "output_norm.weight" : fmt::format("blk.{}.attn_norm.weight", layer);
}

double square(const Values& x) {
  double sum = 0;
  for (const float value : x) sum += double{value} * double{value};
  return sum;
}

void add_shape(std::span<const float> x, std::size_t columns, RoundingProbe& probe) {
  const std::size_t rows = x.size() / columns;
  std::vector<double> sizes(columns);
  double ratio = 0, kurtosis = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    double second = 0, fourth = 0;
    for (std::size_t i = 0; i < columns; ++i) {
      const double value = std::abs(double{x[row * columns + i]});
      sizes[i] = value;
      second += value * value;
      fourth += value * value * value * value;
    }
    std::ranges::sort(sizes);
    const auto count = static_cast<double>(columns);
    ratio += sizes.back() / std::max(sizes[columns / 2], 1e-30);
    kurtosis += fourth / count / std::max(second * second / (count * count), 1e-30);
  }
  probe.max_to_median += ratio / static_cast<double>(rows);
  probe.kurtosis += kurtosis / static_cast<double>(rows);
}

// Runs the model's parts on one batch.
class Prober {
 public:
  Prober(SmallModel& model, const ByteText& text, const passes::QatOptions& rounding)
      : model_(model), rounding_(rounding), batch_(model.held_out_batch(text, 0)) {}

  Result<Values> embedding() {
    const auto build = [this]() -> Result<ir::Graph> {
      auto graph = model_.graph(false);
      if (!graph) return graph;
      const ir::ValueId stream = read_by_norm(*graph, norm_of(0, model_.options().layers));
      return cut(*graph, stream, {}, -1);
    };
    return run("embedding", build, {}, nullptr);
  }

  // f(stream) or fq(stream) of a block; what its linear layers read goes into `probe`.
  Result<Values> block(std::int64_t layer, bool rounded, const Values& stream,
                       RoundingProbe* probe) {
    const auto build = [=, this]() -> Result<ir::Graph> {
      auto graph = model_.graph(false);
      if (graph) graph = block_graph(*graph, layer, model_.options().layers);
      if (graph && rounded) graph = passes::add_qat(*graph, rounding_);
      return graph;
    };
    const std::int64_t bits = rounded ? rounding_.weight_bits : 0;
    return run(fmt::format("block {} {}", layer, bits), build, stream, probe);
  }

  static Result<ir::Graph> cut(const ir::Graph& whole, ir::ValueId end,
                               const std::vector<ir::ValueId>& more, ir::ValueId start) {
    if (end < 0) {
      return Error{ErrorCode::kNotFound, "the graph has no such block", "", "", "", ""};
    }
    ir::Rewriter rewriter(whole, ops::find_op);
    for (const ir::Operation& operation : whole.operations) {
      rewriter.copy(operation);
      if (start >= 0 && std::ranges::count(operation.results, start) > 0) {
        rewriter.replace(start, rewriter.emit_source(ops::find_op("input"), whole.type(start),
                                                     {{"name", std::string("stream")}}));
      }
    }
    std::vector<ir::ValueId> outputs = {rewriter.map(end)};
    for (const ir::ValueId id : more) outputs.push_back(rewriter.map(id));
    auto graph = rewriter.finish();
    if (!graph) return graph;
    graph->outputs = outputs;
    graph->output_names.clear();
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      graph->output_names.push_back(i == 0 ? "stream" : fmt::format("read{}", i));
    }
    return passes::find_pass("dce")->run(*graph);
  }

 private:
  Result<Values> run(const std::string& key, const std::function<Result<ir::Graph>()>& build,
                     const Values& stream, RoundingProbe* probe) {
    std::vector<Network::Input> inputs = batch_.inputs();
    inputs.push_back({"stream", std::as_bytes(std::span(stream))});
    const Network::Program program{build, nullptr, nullptr, {}, false};
    const auto outcome = model_.network().run("probe " + key, program, inputs);
    if (!outcome) return outcome.error();
    const auto rows = static_cast<std::size_t>(model_.tokens());
    for (std::size_t i = 1; probe != nullptr && i < outcome->outputs.size(); ++i) {
      add_shape(outcome->outputs[i], outcome->outputs[i].size() / rows, *probe);
    }
    return Values(outcome->outputs[0].begin(), outcome->outputs[0].end());
  }

  SmallModel& model_;
  const passes::QatOptions& rounding_;
  SmallModel::Batch batch_;
};

}  // namespace

double RoundingProbe::gain() const {
  double sum = 0;
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    sum += blocks[i].propagated / std::max(blocks[i - 1].total, 1e-30);
  }
  return blocks.size() > 1 ? sum / static_cast<double>(blocks.size() - 1) : 0;
}

Result<ir::Graph> block_graph(const ir::Graph& whole, std::int64_t layer, std::int64_t layers) {
  const ir::ValueId start = read_by_norm(whole, norm_of(layer, layers));
  const ir::ValueId end = read_by_norm(whole, norm_of(layer + 1, layers));
  const std::string prefix = fmt::format("blk.{}.", layer);
  std::set<ir::ValueId> read;
  for (const ir::Operation& operation : whole.operations) {
    if (passes::product_of(whole, operation, 32) != passes::Product::kForward) continue;
    const ir::Operation& weight = whole.producer(operation.operands[1]);
    if (weight.attributes.text("name").starts_with(prefix)) read.insert(operation.operands[0]);
  }
  return Prober::cut(whole, end, {read.begin(), read.end()}, start);
}

Result<RoundingProbe> probe_rounding(SmallModel& model, const ByteText& text,
                                     const passes::QatOptions& rounding, std::int64_t batches) {
  Prober prober(model, text, rounding);
  RoundingProbe probe;
  const Arithmetic rounded{
      fmt::format("rounded to {} bits", rounding.weight_bits),
      [rounding](const ir::Graph& graph) { return passes::add_qat(graph, rounding); }, nullptr};
  const auto loss = model.held_out_loss(text, batches, {});
  const auto rounded_loss = model.held_out_loss(text, batches, rounded);
  if (!loss || !rounded_loss) return loss ? rounded_loss.error() : loss.error();
  probe.loss = *loss;
  probe.loss_gained = *rounded_loss - *loss;
  auto clean = prober.embedding();
  if (!clean) return clean.error();
  Values h = *std::move(clean);
  Values hq = h;
  const std::int64_t layers = model.options().layers;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const auto f_h = prober.block(layer, false, h, &probe);
    const auto f_hq = prober.block(layer, false, hq, nullptr);
    const auto fq_h = prober.block(layer, true, h, nullptr);
    const auto fq_hq = prober.block(layer, true, hq, nullptr);
    for (const auto* each : {&f_h, &f_hq, &fq_h, &fq_hq}) {
      if (!*each) return each->error();
    }
    Values a(h.size()), b(h.size()), both(h.size());
    double dot = 0;
    for (std::size_t i = 0; i < h.size(); ++i) {
      a[i] = (((*fq_hq)[i] - (*fq_h)[i]) + ((*f_hq)[i] - (*f_h)[i])) / 2;
      b[i] = (((*fq_hq)[i] - (*f_hq)[i]) + ((*fq_h)[i] - (*f_h)[i])) / 2;
      both[i] = a[i] + b[i];
      dot += double{a[i]} * double{b[i]};
    }
    const double size = std::max(square(*f_h), 1e-30);
    probe.blocks.push_back(
        {square(both) / size, square(a) / size, square(b) / size, 2 * dot / size});
    h = *f_h;
    hq = *fq_hq;
  }
  const auto inputs = static_cast<double>(4 * layers);
  probe.max_to_median /= inputs;
  probe.kurtosis /= inputs;
  return probe;
}

}  // namespace hone::tune
