// hone runs: what was run, with what, and what came of it.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/nearest.h"
#include "cli/registry.h"
#include "cli/run_checkpoints.h"
#include "cli/run_views.h"
#include "cli/tune_report.h"

namespace hone::cli {
namespace {

using tune::MetricSummary;
using tune::RunRow;
using tune::RunStore;

struct Options {
  std::string what = "list";
  std::string first;
  std::string second;
  std::int64_t most = 20;
  std::string verb;
  std::string status;
  std::string output = "adapter.gguf";
  std::optional<std::string> store;
};

void declare(Options& options, Arguments& arguments) {
  arguments.optional_positional("WHAT", options.what, "list, show, diff or replay [list]");
  arguments.optional_positional("RUN", options.first,
                                "an id, its beginning or last four digits, last, last~1 [last]");
  arguments.optional_positional("OTHER", options.second, "for diff: the run to compare with");
  arguments.option("-n,--most", options.most, "list: so many of the newest; 0: all", Integers{0});
  arguments.option("--verb", options.verb, "list: runs of this verb only");
  arguments.option("--status", options.status,
                   "list: running, finished, interrupted or failed only");
  arguments.option("-o,--output", options.output,
                   "replay: where what the run made is written again", "PATH");
  declare_runs(options.store, arguments);
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

std::string number_text(double value) { return fmt::format("{:.5g}", value); }

Json metrics_document(const std::vector<MetricSummary>& metrics) {
  Json all = Json::object();
  for (const MetricSummary& one : metrics) {
    all[one.name] = Json{{"count", one.count},
                         {"first_step", one.first.step},
                         {"first", number(one.first.value)},
                         {"last_step", one.last.step},
                         {"last", number(one.last.value)},
                         {"least", number(one.least)},
                         {"most", number(one.most)}};
  }
  return all;
}

// The end of a path, which says most.
std::string short_path(const std::string& path) {
  return path.empty() ? "-" : path.substr(path.find_last_of('/', path.size() - 2) + 1);
}

Status list(const Options& options, RunStore& store, Output& output) {
  const auto runs = store.list({options.verb, options.status, options.most});
  if (!runs) return runs.error();
  Json documents = Json::array();
  Table table({"run", "what", "status", "started", "took", "model", "data", "steps", "loss"},
              "llllrllrr");
  for (const RunRow& run : *runs) {
    const auto metrics = store.summaries(run.id);
    if (!metrics) return metrics.error();
    if (output.json()) {
      documents.push_back(run_document(run));
      documents.back()["metrics"] = metrics_document(*metrics);
      continue;
    }
    const auto loss = std::ranges::find(*metrics, "loss", &MetricSummary::name);
    const bool found = loss != metrics->end();
    table.row({run.id, visible(kind_text(run)), status_text(run), time_text(run.started),
               duration_text(run), visible(short_path(run.info.model)),
               visible(short_path(run.info.data)), found ? fmt::format("{}", loss->last.step) : "-",
               found ? fmt::format("{:.4g}", loss->last.value) : "-"});
  }
  if (output.json()) {
    output.document(Json{{"file", store.path()}, {"runs", documents}});
  } else if (runs->empty()) {
    output.note("no run matches");
  } else {
    output.print(table.text());
  }
  return {};
}

// A run as names and values in a fixed order; arguments one by one.
std::vector<std::pair<std::string, std::string>> facts_of(const RunRow& run) {
  const auto with_hash = [](const std::string& path, const std::string& hash) {
    if (path.empty()) return std::string();
    return path + (hash.empty() ? "" : fmt::format(" (sha256 {})", hash.substr(0, 16)));
  };
  std::vector<std::pair<std::string, std::string>> facts = {
      {"what", kind_text(run)},
      {"status", status_text(run)},
      {"note", run.note},
      {"started", time_text(run.started)},
      {"took", duration_text(run)},
      {"model", with_hash(run.info.model, run.info.model_hash)},
      {"data", with_hash(run.info.data, run.info.data_hash)},
      {"seed", fmt::format("{}", run.info.seed)},
      {"host", run.host},
  };
  for (const auto& [prefix, text] :
       {std::pair{"", &run.versions_json}, std::pair{"--", &run.info.arguments_json}}) {
    const Json object = Json::parse(*text, nullptr, false);
    if (!object.is_object()) continue;
    for (const auto& [key, value] : object.items()) {
      facts.emplace_back(prefix + key,
                         value.is_string()
                             ? value.get<std::string>()
                             : value.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
  }
  for (const auto& [key, value] : run.attached) facts.emplace_back(key, value);
  return facts;
}

Status show(const Options& options, RunStore& store, Output& output) {
  const auto run = store.find(options.first.empty() ? "last" : options.first);
  if (!run) return run.error();
  const auto metrics = store.summaries(run->id);
  if (!metrics) return metrics.error();
  if (output.json()) {
    Json document = run_document(*run);
    document["metrics"] = metrics_document(*metrics);
    output.document(document);
    return {};
  }
  output.print(output.bold(run->id) + "\n");
  std::size_t width = 0;
  const auto facts = facts_of(*run);
  for (const auto& [name, value] : facts) width = std::max(width, columns_of(name));
  for (const auto& [name, value] : facts) {
    if (value.empty()) continue;
    std::string lines;  // those after the first begin under it
    for (const char byte : visible(value)) {
      lines += byte;
      if (byte == '\n') lines += std::string(width + 4, ' ');
    }
    output.print(fmt::format("  {}{}  {}\n", visible(name),
                             std::string(width - columns_of(name), ' '), lines));
  }
  if (metrics->empty()) return {};
  Table table({"metric", "values", "first", "last", "least", "most"}, "lrrrrr");
  for (const MetricSummary& one : *metrics) {
    table.row({visible(one.name), fmt::format("{}", one.count), number_text(one.first.value),
               number_text(one.last.value), number_text(one.least), number_text(one.most)});
  }
  output.print("\n" + table.text(2));
  const auto loss = std::ranges::find(*metrics, "loss", &MetricSummary::name);
  if (loss == metrics->end() || loss->count < 3) return {};
  auto series = series_of(store, *run, "loss");
  if (!series) return series.error();
  series->name.clear();
  const int columns = std::min(terminal_size().first - 1, 100);
  output.print("\n" + tune::terminal_chart(std::span(&*series, 1), columns, 10, output.color(),
                                           {"", "step", "loss"}));
  return {};
}

Status diff(const Options& options, RunStore& store, Output& output) {
  if (options.first.empty() || options.second.empty()) {
    return Error{ErrorCode::kInvalidArgument, "two runs are needed to compare",
                 "the command line",          "",
                 "hone runs diff A B",        "hone runs diff last~1 last"};
  }
  const auto a = store.find(options.first);
  if (!a) return a.error();
  const auto b = store.find(options.second);
  if (!b) return b.error();
  // Names in the order of the first run, then what only the second has.
  std::vector<std::string> names;
  std::map<std::string, std::pair<std::string, std::string>> values;
  for (const auto& [name, value] : facts_of(*a)) {
    names.push_back(name);
    values[name].first = value;
  }
  for (const auto& [name, value] : facts_of(*b)) {
    if (!values.contains(name)) names.push_back(name);
    values[name].second = value;
  }
  Json facts = Json::object();
  Table table({"", a->id, b->id});
  std::string same;
  for (const std::string& name : names) {
    const auto& [mine, theirs] = values[name];
    if (mine == theirs) {
      if (!mine.empty()) same += (same.empty() ? "" : ", ") + visible(name);
      continue;
    }
    facts[name] = Json::array({mine, theirs});
    table.row({visible(name), visible(mine), visible(theirs)});
  }
  const auto mine = store.summaries(a->id);
  if (!mine) return mine.error();
  const auto theirs = store.summaries(b->id);
  if (!theirs) return theirs.error();
  Json metrics = Json::object();
  Table last({"last value of", a->id, b->id, "difference"}, "lrrr");
  const auto add = [&](const std::string& name, const MetricSummary* left,
                       const MetricSummary* right) {
    metrics[name] = Json::array({left != nullptr ? number(left->last.value) : Json(),
                                 right != nullptr ? number(right->last.value) : Json()});
    const auto text = [](const MetricSummary* one) {
      return one == nullptr ? "-" : number_text(one->last.value);
    };
    const bool both = left != nullptr && right != nullptr;
    last.row({visible(name), text(left), text(right),
              both ? fmt::format("{:+.4g}", right->last.value - left->last.value) : ""});
  };
  const auto find = [](const std::vector<MetricSummary>& among, const std::string& name) {
    const auto at = std::ranges::find(among, name, &MetricSummary::name);
    return at == among.end() ? nullptr : &*at;
  };
  for (const MetricSummary& one : *mine) add(one.name, &one, find(*theirs, one.name));
  for (const MetricSummary& one : *theirs) {
    if (find(*mine, one.name) == nullptr) add(one.name, nullptr, &one);
  }
  if (output.json()) {
    output.document(Json{{"a", a->id}, {"b", b->id}, {"different", facts}, {"last", metrics}});
    return {};
  }
  if (table.rows() > 1) output.print(table.text());
  if (!same.empty()) output.print(output.dim(fmt::format("the same: {}", same)) + "\n");
  if (last.rows() > 1) output.print("\n" + last.text());
  return {};
}

// What a run made, out of its last checkpoint: of forward passes alone the list of seeds and
// scalars, from which every step is made again without running the model.
Status replay(const Options& options, Output& output) {
  const std::string run = options.first.empty() ? "last" : options.first;
  const auto folder = checkpoints_folder(run, options.store.value_or(""));
  if (!folder) return folder.error();
  const auto latest = tune::latest_checkpoint(*folder);
  if (!latest) return latest.error();
  if (!latest->checkpoint) {
    return Error{
        ErrorCode::kNotFound, "there is no whole checkpoint", *folder, "", "checkpoint-N.hone", ""};
  }
  auto job = job_of(*latest->checkpoint);
  if (!job) return job.error();
  tune::Trainer& trainer = (*job)->trainer();
  HONE_RETURN_IF_ERROR(trainer.restore(*latest->checkpoint));
  const auto metadata = nlohmann::json::parse(latest->checkpoint->metadata_json(), nullptr, false);
  const std::string expected = metadata.value("hash", "");
  if (trainer.hash() != expected) {
    return Error{ErrorCode::kCorrupt,
                 "the replayed steps gave other bits",
                 latest->checkpoint->path(),
                 trainer.hash(),
                 expected,
                 "was it made with another version or machine type?"};
  }
  HONE_RETURN_IF_ERROR(save_result(**job, options.output, output));
  if (output.json()) {
    output.document(Json{
        {"steps", trainer.steps_done()}, {"hash", trainer.hash()}, {"output", options.output}});
  } else {
    output.print(fmt::format("{} steps give the same bits: {}\nwrote {}\n", trainer.steps_done(),
                             trainer.hash(), options.output));
  }
  return {};
}

Status run(const Options& options, Output& output) {
  constexpr std::string_view kKinds[] = {"list", "show", "diff", "replay"};
  if (std::ranges::find(kKinds, options.what) == std::end(kKinds)) {
    const std::string meant = nearest(options.what, kKinds);
    return Error{ErrorCode::kInvalidArgument,
                 "there is no such view of runs",
                 "the command line",
                 fmt::format("'{}'", options.what),
                 "list, show, diff or replay",
                 meant.empty() ? fmt::format("hone runs show {}", options.what)
                               : fmt::format("did you mean '{}'?", meant)};
  }
  const bool too_many =
      (options.what == "list" && !options.first.empty()) ||
      ((options.what == "show" || options.what == "replay") && !options.second.empty());
  if (too_many) {
    return Error{ErrorCode::kInvalidArgument,
                 "there is one argument too many",
                 "the command line",
                 fmt::format("'{}'", options.what == "list" ? options.first : options.second),
                 "",
                 "see `hone runs --help`"};
  }
  if (options.what == "replay") return replay(options, output);
  auto store = RunStore::open_present(runs_path(options.store));
  if (!store) return store.error();
  if (options.what == "show") return show(options, *store, output);
  if (options.what == "diff") return diff(options, *store, output);
  return list(options, *store, output);
}

}  // namespace

const Verb& runs_verb() {
  static const Verb kVerb = make_verb("runs", "list, show, compare and replay what was run",
                                      "hone runs\nhone runs show last\nhone runs diff last~1 last\n"
                                      "hone runs replay last -o again.gguf",
                                      declare, run);
  return kVerb;
}

}  // namespace hone::cli
