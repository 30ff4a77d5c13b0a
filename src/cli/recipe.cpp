// hone recipe: runs a paper's claim and shows the published and the measured number side by side.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/registry.h"
#include "recipes/recipe.h"

namespace hone::cli {
namespace {

struct Options {
  std::string name;
  std::string model = "smollm2";
  std::string data = "../shared/data";
  double budget = 1;
  std::int64_t seed = 1;
  std::int64_t seeds = 0;
  std::int64_t threads = 0;
};

void declare(Options& options, Arguments& arguments) {
  arguments.optional_positional("NAME", options.name, "the recipe; without it they are listed");
  arguments.option("-m,--model", options.model, "for recipes that start from a model", "MODEL");
  arguments.option("--data", options.data, "folder of public data sets", "FOLDER");
  arguments.option("--budget", options.budget, "part of the full run", Numbers{0.0001, 100});
  arguments.option("-s,--seed", options.seed, "same seed, same table", Integers{0});
  arguments.option("--seeds", options.seeds, "seeds to average over; 0: as the recipe says",
                   Integers{0, 1000});
  arguments.option("-j,--threads", options.threads, "threads; 0: all cores", Integers{0, 1024});
}

Status list(Output& output) {
  if (output.json()) {
    Json document = Json::array();
    for (const recipes::Recipe* recipe : recipes::all_recipes()) {
      document.push_back(Json{{"name", recipe->name},
                              {"paper", recipe->paper},
                              {"claim", recipe->claim},
                              {"setting", recipe->setting}});
    }
    output.document(document);
    return {};
  }
  for (const recipes::Recipe* recipe : recipes::all_recipes()) {
    output.print(fmt::format("{}\n  {}\n  claim:   {}\n  here:    {}\n", output.bold(recipe->name),
                             recipe->paper, recipe->claim, recipe->setting));
  }
  return {};
}

Status run(const Options& options, Output& output) {
  if (options.name.empty()) return list(output);
  const recipes::Recipe* recipe = recipes::find_recipe(options.name);
  if (recipe == nullptr) {
    std::string known;
    for (const recipes::Recipe* each : recipes::all_recipes()) {
      known += (known.empty() ? "" : ", ") + std::string(each->name);
    }
    return Error{ErrorCode::kNotFound,      "there is no such recipe", "", options.name, known,
                 "`hone recipe` lists them"};
  }
  ThreadPool pool(static_cast<int>(options.threads));
  recipes::RecipeContext context{pool,           static_cast<std::uint64_t>(options.seed),
                                 options.budget, options.data,
                                 options.model,  nullptr,
                                 options.seeds};
  if (!output.json() && !output.quiet()) {
    context.progress = [&](std::string_view line) { output.note(line); };
  }
  const auto report = recipe->run(context);
  if (!report) return report.error().in("recipe " + options.name);
  if (output.json()) {
    Json rows = Json::array();
    for (const recipes::RecipeRow& row : report->rows) {
      rows.push_back(Json{{"what", row.what},
                          {"published", row.published},
                          {"measured", row.measured},
                          {"verdict", row.verdict}});
    }
    output.document(Json{{"recipe", recipe->name},
                         {"paper", recipe->paper},
                         {"budget", options.budget},
                         {"seed", options.seed},
                         {"rows", rows},
                         {"notes", report->notes},
                         {"skipped", report->skipped}});
    return {};
  }
  output.print(fmt::format("{}\n{}\n\n", output.bold(recipe->paper), recipe->claim));
  if (!report->skipped.empty()) {
    output.print("skipped: " + report->skipped + "\n");
    return {};
  }
  Table table({"what", "published", "measured", "verdict"});
  for (const recipes::RecipeRow& row : report->rows) {
    table.row({row.what, row.published, row.measured, row.verdict});
  }
  output.print(table.text());
  for (const std::string& note : report->notes) output.print("- " + note + "\n");
  return {};
}

}  // namespace

const Verb& recipe_verb() {
  static const Verb kVerb =
      make_verb("recipe", "run a paper's claim, published and measured number side by side",
                "hone recipe\nhone recipe lion-k\nhone recipe orion --budget 0.1", declare, run);
  return kVerb;
}

}  // namespace hone::cli
