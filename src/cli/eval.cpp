// hone eval: how well a model answers questions with known answers.
// SPDX-License-Identifier: Apache-2.0
#include "tune/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/progress.h"
#include "cli/model_options.h"
#include "cli/program.h"
#include "cli/registry.h"
#include "cli/run_views.h"

namespace hone::cli {
namespace {

using tune::EvalExample;
using tune::EvalOutcome;
using tune::EvalReport;
using tune::Proportion;

struct Options {
  ModelOptions model;
  std::optional<std::string> data;
  std::optional<std::string> results;
  std::int64_t limit = 0;
  bool raw = false;
  std::string system;
  std::optional<std::string> delimiter;
  std::int64_t tokens = 64;
  std::vector<std::string> stops;
  tune::MatchOptions match;
  std::optional<std::string> store;
  bool no_record = false;
};

void declare(Options& options, Arguments& arguments) {
  declare_model(options.model, arguments);
  arguments.option("-d,--data", options.data,
                   "examples, one JSON object a line; - is standard input", "FILE");
  arguments.option("-o,--output", options.results, "write what came of each example, as JSON lines",
                   "FILE");
  arguments.option("--limit", options.limit, "only the first so many; 0: all", Integers{0});
  arguments.flag("--raw", options.raw, "prompts as they are, without the chat template");
  arguments.option("--system", options.system, "what the model is told before each prompt");
  arguments.option("--delimiter", options.delimiter,
                   "between prompt and choice [a space in --raw where there is none]");
  arguments.option("--max-tokens", options.tokens, "most tokens of an answer in its own words",
                   Integers{1, 1 << 20});
  arguments.option("--stop", options.stops,
                   "end an answer before this; may be given several times");
  arguments.option("--extract", options.match.extract,
                   "what counts of the answer: the last match's first group", "REGEX");
  arguments.option("--extract-answer", options.match.extract_answer,
                   "the same of the answers in the file", "REGEX");
  arguments.flag("--ignore-case", options.match.ignore_case, "upper and lower case are the same");
  arguments.flag("--ignore-punctuation", options.match.ignore_punctuation,
                 "neither punctuation nor the width of spaces counts");
  arguments.flag("--numbers", options.match.numbers, "1,234.0 and $1234 are the same");
  arguments.flag("--keep-space", options.match.keep_space, "white space at both ends counts");
  arguments.flag("--no-record", options.no_record, "do not add this to the run records");
  declare_runs(options.store, arguments);
}

Json arguments_document(const Options& options) {
  return Json{{"limit", options.limit},
              {"raw", options.raw},
              {"system", options.system},
              {"delimiter", options.delimiter ? Json(*options.delimiter) : Json()},
              {"max-tokens", options.tokens},
              {"stop", options.stops},
              {"extract", options.match.extract},
              {"extract-answer", options.match.extract_answer},
              {"ignore-case", options.match.ignore_case},
              {"ignore-punctuation", options.match.ignore_punctuation},
              {"numbers", options.match.numbers},
              {"keep-space", options.match.keep_space},
              {"arithmetic", options.model.arithmetic},
              {"cache", options.model.cache}};
}

Json share_document(const Proportion& share) {
  return Json{
      {"right", share.count}, {"accuracy", share.share}, {"low", share.low}, {"high", share.high}};
}

Json report_document(const EvalReport& report) {
  Json document{{"examples", report.outcomes.size()},
                {"complete", report.complete},
                {"seconds", report.seconds},
                {"prompt_tokens", report.prompt_tokens}};
  if (report.by_sum.total > 0) {
    document["multiple_choice"] = Json{{"examples", report.by_sum.total},
                                       {"sum", share_document(report.by_sum)},
                                       {"per_token", share_document(report.per_token)},
                                       {"per_character", share_document(report.per_character)},
                                       {"chance", report.chance},
                                       {"choice_loss", report.choice_loss},
                                       {"predicted", report.predicted}};
  }
  if (report.exact.total > 0) {
    Json exact = share_document(report.exact);
    exact["examples"] = report.exact.total;
    exact["generated_tokens"] = report.generated_tokens;
    document["exact_match"] = exact;
  }
  return document;
}

std::string outcome_line(const EvalOutcome& outcome, const EvalExample& example) {
  Json line{{"line", example.line}, {"prompt", example.prompt}, {"right", outcome.right}};
  if (example.choices.empty()) {
    line["answers"] = example.answers;
    line["said"] = outcome.said;
    line["extracted"] = outcome.extracted ? Json(*outcome.extracted) : Json();
    line["tokens"] = outcome.tokens;
  } else {
    Json scores = Json::array();
    for (std::size_t i = 0; i < outcome.scores.size(); ++i) {
      scores.push_back({{"choice", example.choices[i]},
                        {"log_probability", outcome.scores[i].log_probability},
                        {"tokens", outcome.scores[i].tokens},
                        {"characters", outcome.scores[i].characters}});
    }
    line["answer"] = example.answer;
    line["predicted"] = outcome.best;
    line["predicted_per_token"] = outcome.best_per_token;
    line["predicted_per_character"] = outcome.best_per_character;
    line["choices"] = scores;
  }
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Status write_outcomes(const std::string& path, const EvalReport& report,
                      std::span<const EvalExample> examples) {
  std::string text;
  for (const EvalOutcome& outcome : report.outcomes) {
    text += outcome_line(outcome, examples[outcome.example]);
  }
  return write_file_atomically(path, text);
}

std::string report_text(const EvalReport& report) {
  std::string text;
  const auto interval = [](const Proportion& share) {
    return fmt::format("{:.1f} to {:.1f} %", 100 * share.low, 100 * share.high);
  };
  const auto percent = [](double share) { return fmt::format("{:.1f} %", 100 * share); };
  if (report.by_sum.total > 0) {
    Table table({"multiple choice, by", "right", "of", "accuracy", "95 % interval"}, "lrrrr");
    for (const auto& [name, share] :
         {std::pair{"sum", report.by_sum}, std::pair{"mean over tokens", report.per_token},
          std::pair{"mean over characters", report.per_character}}) {
      table.row({name, fmt::format("{}", share.count), fmt::format("{}", share.total),
                 percent(share.share), interval(share)});
    }
    text += table.text();
    text += fmt::format("chance {}; loss over the choices {:.4f}\n", percent(report.chance),
                        report.choice_loss);
    std::string chosen;
    for (std::size_t i = 0; i < report.predicted.size() && i < 10; ++i) {
      chosen += fmt::format("{}number {} {} times", i == 0 ? "" : ", ", i, report.predicted[i]);
    }
    text += fmt::format("chosen by sum: {}\n", chosen);
  }
  if (report.exact.total > 0) {
    Table table({"exact match", "right", "of", "accuracy", "95 % interval"}, "lrrrr");
    table.row({"", fmt::format("{}", report.exact.count), fmt::format("{}", report.exact.total),
               percent(report.exact.share), interval(report.exact)});
    text += (text.empty() ? "" : "\n") + table.text();
  }
  return text;
}

// One row for the records. What goes wrong here is told, but costs nobody the result.
class Record {
 public:
  Record(const Options& options, Output& output) : output_(output) {
    if (!options.no_record) begin(options);
  }

  const std::string& id() const { return id_; }

  void finish(const Result<EvalReport>& report, const std::optional<std::string>& results) {
    if (id_.empty()) return;
    Status status;
    if (report) {
      std::vector<tune::Metric> metrics;
      const auto add = [&](std::string_view name, const Proportion& share, double value) {
        if (share.total > 0) metrics.emplace_back(name, value);
      };
      add("accuracy", report->by_sum, report->by_sum.share);
      add("accuracy_per_token", report->per_token, report->per_token.share);
      add("accuracy_per_character", report->per_character, report->per_character.share);
      add("choice_loss", report->by_sum, report->choice_loss);
      add("exact_match", report->exact, report->exact.share);
      metrics.emplace_back("examples", static_cast<double>(report->outcomes.size()));
      status = store_->log(id_, 0, metrics);
      if (status.ok() && results) status = store_->attach(id_, "output", *results);
    }
    if (status.ok()) {
      status = store_->finish(id_,
                              !report            ? tune::kFailed
                              : report->complete ? tune::kFinished
                                                 : tune::kInterrupted,
                              report ? "" : report.error().what);
    }
    if (!status.ok()) complain(status.error());
  }

 private:
  void begin(const Options& options) {
    auto store = tune::RunStore::open(runs_path(options.store));
    if (!store) return complain(store.error());
    store_ = *std::move(store);
    tune::RunInfo info;
    info.verb = "eval";
    info.method = options.raw ? "raw" : "chat";
    info.arguments_json =
        arguments_document(options).dump(-1, ' ', false, Json::error_handler_t::replace);
    const auto model = engine::resolve_model(options.model.model);
    info.model = model ? *model : options.model.model;
    info.data = *options.data;
    const auto hash = [&](const std::string& path) {
      const Result<std::string> found =
          path == "-" ? Result<std::string>(std::string()) : store_->hash_of(path);
      return found ? *found : "";
    };
    info.model_hash = hash(info.model);
    info.data_hash = hash(info.data);
    const auto id = store_->begin(info);
    if (!id) return complain(id.error());
    id_ = *id;
  }

  void complain(const Error& error) {
    output_.note(fmt::format("this run is not recorded: {} ({})", error.what, error.where));
  }
  Output& output_;
  std::optional<tune::RunStore> store_;
  std::string id_;
};

Status run(const Options& options, Output& output) {
  if (!options.data) {
    return Error{ErrorCode::kInvalidArgument,
                 "there are no questions",
                 "the command line",
                 "",
                 "--data FILE",
                 "hone eval smollm2 --data questions.jsonl"};
  }
  const auto text = read_text(*options.data);
  if (!text) return text.error();
  auto examples = tune::read_eval_examples(*text, *options.data);
  if (!examples) return examples.error();
  if (options.limit > 0 && static_cast<std::size_t>(options.limit) < examples->size()) {
    examples->resize(static_cast<std::size_t>(options.limit));
  }
  auto model = load(options.model);
  if (!model) return model.error();
  catch_interrupts();
  tune::EvalOptions how;
  how.raw = options.raw;
  how.system = options.system;
  how.delimiter = options.delimiter;
  how.most_tokens = options.tokens;
  how.stops = options.stops;
  how.match = options.match;
  how.interrupted = [] { return interrupted(); };
  Record record(options, output);
  Result<EvalReport> report = EvalReport();
  {
    Progress progress("evaluating", static_cast<std::int64_t>(examples->size()), 0,
                      ProgressUnit::kCount);
    how.progress = [&](std::int64_t done, std::int64_t) {
      if (!output.quiet()) progress.update(done);
    };
    report = tune::evaluate(*model->session, model->tokenizer, *examples, how);
    if (!report) report = report.error().in(*options.data);
  }
  if (report && options.results) {
    const Status written = write_outcomes(*options.results, *report, *examples);
    if (!written.ok()) report = written.error();
  }
  record.finish(report, options.results);
  if (!report) return report.error();
  if (output.json()) {
    Json document = report_document(*report);
    if (!record.id().empty()) document["run"] = record.id();
    output.document(document);
    return {};
  }
  output.print(report_text(*report));
  if (!report->complete) {
    output.note(fmt::format("interrupted after {} of {} examples", report->outcomes.size(),
                            examples->size()));
  }
  return {};
}

}  // namespace

const Verb& eval_verb() {
  static const Verb kVerb = make_verb(
      "eval", "measure how well a model answers questions with known answers",
      "hone eval smollm2 --data questions.jsonl\nhone eval smollm2 --data arithmetic.jsonl "
      "--extract \"(\\d+)\" --max-tokens 32\nhone eval gemma3 --raw --data sentiment.jsonl "
      "--output "
      "outcomes.jsonl --json",
      declare, run);
  return kVerb;
}

}  // namespace hone::cli
