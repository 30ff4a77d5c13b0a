// HALO: training in int8 with Hadamard rotations around the products, forward and backward.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "passes/pass.h"
#include "passes/transform/quantize_training.h"
#include "recipes/recipe.h"
#include "tune/product_timing.h"
#include "tune/small_training.h"

namespace hone::recipes {
namespace {

using passes::HaloOptions;
using passes::ScaleOf;

// A power of two, so that f32 with and without the loud channel computes the same bits; the sheet
// of the paper's stress says 50.
constexpr double kLoud = 64;

struct Run {
  const char* name;
  std::function<Result<ir::Graph>(const ir::Graph&)> after;
};

std::function<Result<ir::Graph>(const ir::Graph&)> halo(HaloOptions options) {
  return [options](const ir::Graph& graph) { return passes::quantize_training(graph, options); };
}

std::vector<Run> runs() {
  const auto bf16 = [](const ir::Graph& graph) { return passes::find_pass("bf16")->run(graph); };
  return {{"f32", nullptr},
          {"bf16", bf16},
          {"int8, no rotation (level 0)", halo({0, ScaleOf::kTensor})},
          {"int8, HALO 1", halo({1, ScaleOf::kTensor})},
          {"int8, HALO 2", halo({2, ScaleOf::kTensor})},
          {"int8, HALO 2, rotated codes kept", halo({2, ScaleOf::kTensor, 8, true})},
          {"int8, no rotation, a scale a row", halo({0, ScaleOf::kRow})},
          {"int8, HALO 2, a scale a row", halo({2, ScaleOf::kRow})}};
}

// Held-out loss, in the arithmetic that it was trained in.
Result<double> loss_after(const RecipeContext& context, const tune::ByteText& text,
                          const Run& run) {
  tune::SmallModelOptions size;  // 0.9 M parameters
  size.length = 128;
  auto model = tune::SmallModel::make(context.pool, size, context.seed);
  if (!model) return model.error();
  const auto loud = [](const ir::Graph& graph) { return tune::with_loud_channel(graph, 5, kLoud); };
  const tune::Arithmetic arithmetic{run.name, loud, run.after};
  tune::SmallTraining how;
  how.steps = context.scaled(300, 3);
  how.learning_rate = 2e-3;
  const auto curve = train_small(*model, text, arithmetic, how);
  if (!curve) return curve.error();
  const auto loss = model->held_out_loss(text, context.scaled(16, 1), arithmetic);
  if (!loss) return loss.error();
  std::string points;
  for (std::size_t i = 0; i < 6; ++i) {
    points += fmt::format(" {:.3f}", curve->losses[i * (curve->losses.size() - 1) / 5]);
  }
  context.tell(fmt::format("{}: loss{}, held out {:.4f}", run.name, points, *loss));
  return *loss;
}

Result<RecipeReport> run(const RecipeContext& context) {
  RecipeReport report;
  const auto text = tune::read_byte_text(context.data + "/classification/halo-sql-valid.jsonl");
  if (!text) {
    report.skipped = "the data set is absent: " + text.error().text();
    return report;
  }
  std::vector<double> loss;
  for (const Run& each : runs()) {
    const auto found = loss_after(context, *text, each);
    if (!found) return found.error();
    loss.push_back(*found);
    report.rows.push_back(
        {fmt::format("held-out loss, {}", each.name), "",
         fmt::format("{:.4f} nats a byte ({:+.2f} %)", *found, 100 * (*found / loss[0] - 1)), ""});
  }
  const auto closed = [&](std::size_t with) {
    return loss[2] > loss[0] ? (loss[2] - loss[with]) / (loss[2] - loss[0]) : 0.0;
  };
  for (const std::size_t with : {3, 4, 5}) {
    report.rows.push_back(checked(
        fmt::format("part of the gap from int8 to f32 that is closed, {}", runs()[with].name),
        "at least 80 %", fmt::format("{:.0f} %", 100 * closed(with)), closed(with) >= 0.8));
  }
  report.rows.push_back(checked("int8 with Hadamard against bf16", "within 1 %",
                                fmt::format("{:+.2f} %", 100 * (loss[4] / loss[1] - 1)),
                                loss[4] <= 1.01 * loss[1]));
  report.rows.push_back(checked("without the rotation it is worse", "yes",
                                fmt::format("{:+.4f} nats", loss[2] - loss[4]), loss[2] > loss[4]));
  // Both operands are rotated and turned into codes at every call.
  const auto seconds = tune::seconds_of_product(
      context.pool, {512, 576, 1536},
      {{"f32"}, {"codes", nullptr, halo({0})}, {"rotated", nullptr, halo({1})}},
      context.scaled(60, 5));
  if (!seconds) return seconds.error();
  const double dense = (*seconds)[0], codes = (*seconds)[1], rotated = (*seconds)[2];
  report.rows.push_back(
      {"forward product (512, 576) to (512, 1536) with the transform, against f32",
       "up to 1.41x end to end",
       fmt::format("{:.2f}x; without the transform {:.2f}x (f32 {:.2f} ms)", dense / rotated,
                   dense / codes, 1e3 * dense),
       dense / rotated >= 1.3 ? "reproduced" : "weaker"});
  report.notes.push_back(fmt::format(
      "every linear layer's input has one channel times {:.0f}, its weight's column divided by "
      "it: f32 computes the same bits as without",
      kLoud));
  report.notes.push_back(
      "the paper fine-tunes Llama 3 8B on a GPU; here a model of 0.9 M parameters learns bytes of "
      "the same SQL set from nothing, in f32 but for the products; its head stays in f32");
  return report;
}

}  // namespace

const Recipe& halo_recipe() {
  static const Recipe kRecipe{
      "halo", "HALO: Hadamard-Assisted Lower-Precision Optimization (arXiv 2501.02625)",
      "rotations let training in int8, forward and backward, end where bf16 ends",
      "byte model of 0.9 M parameters on the SQL set, one loud channel, 300 steps", run};
  return kRecipe;
}

}  // namespace hone::recipes
