// hone data: what a model would be trained on, token by token with the mask visible.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/human.h"
#include "cli/model_options.h"
#include "cli/registry.h"
#include "formats/tokenizer_utf8.h"
#include "tune/data/dataset.h"

namespace hone::cli {
namespace {

using formats::Tokenizer;

constexpr std::size_t kColumns = 96;  // of the shown examples

struct Options {
  std::string file;
  std::string model;
  std::int64_t length = 512;
  std::int64_t show = 2;
  std::int64_t line = 0;
  double drop = 0.01;
  bool everything = false;
};

void declare(Options& options, Arguments& arguments) {
  arguments.positional("FILE", options.file,
                       "JSON lines, a JSON list, CSV or plain text, told apart by looking");
  arguments.option("-m,--model", options.model, "the model that will be trained", "MODEL");
  arguments.option("-l,--length", options.length, "most tokens of an example",
                   Integers{2, 1 << 24});
  arguments.flag("--everything", options.everything, "loss on all tokens, not on answers only");
  arguments.option("-n,--show", options.show, "examples to show token by token",
                   Integers{0, 1 << 24});
  arguments.option("--line", options.line, "show only the example of this line (or record)",
                   Integers{1});
  arguments.option("--drop", options.drop, "share of the records that may be unusable",
                   Numbers{0, 1});
}

struct Loaded {
  std::string model;
  Tokenizer tokenizer;
  std::optional<formats::ChatTemplate> chat;
  tune::Dataset data;
};

Result<Loaded> load_all(const Options& options) {
  if (options.model.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "which model?",
                 "the command line",
                 "no --model",
                 "its template and tokenizer decide what is trained on",
                 fmt::format("hone data {} --model smollm2", options.file)};
  }
  const auto source = engine::ModelSource::open(options.model);
  if (!source) return source.error();
  auto vocabulary = source->vocabulary();
  if (!vocabulary) return vocabulary.error();
  auto tokenizer = Tokenizer::create(*std::move(vocabulary));
  if (!tokenizer) return tokenizer.error();
  std::optional<formats::ChatTemplate> chat;
  if (const std::string& text = tokenizer->vocabulary().chat_template; !text.empty()) {
    auto compiled = formats::ChatTemplate::compile(text);
    if (!compiled) return compiled.error().in(source->path());
    chat = *std::move(compiled);
  }
  auto data = tune::load_dataset(
      options.file, *tokenizer, chat ? &*chat : nullptr,
      {.length = options.length, .everything = options.everything, .most_dropped = options.drop});
  if (!data) return data.error();
  return Loaded{source->path(), *std::move(tokenizer), std::move(chat), *std::move(data)};
}

// Which examples to show, as indices.
Result<std::vector<std::size_t>> chosen(const Options& options, const tune::Dataset& data) {
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < data.examples.size(); ++i) {
    const bool wanted = options.line == 0
                            ? i < static_cast<std::size_t>(options.show)
                            : data.examples[i].record == static_cast<std::size_t>(options.line);
    if (wanted) indices.push_back(i);
  }
  if (!indices.empty() || options.line == 0) return indices;
  return Error{ErrorCode::kOutOfRange,
               fmt::format("there is no example of {} {}", data.report.unit, options.line),
               "--line",
               "",
               fmt::format("the number of a {} that was kept", data.report.unit),
               ""};
}

// Line ends and tabs as escapes, parts of characters as bytes: each token is seen whole.
std::string shown(std::string_view piece) {
  std::string out;
  if (formats::find_invalid_utf8(piece) < piece.size()) {
    for (const char byte : piece) {
      out += fmt::format("<{:02X}>", static_cast<unsigned char>(byte));
    }
    return out;
  }
  for (const char letter : visible(piece)) {
    out += letter == '\n' ? "\\n" : letter == '\t' ? "\\t" : std::string(1, letter);
  }
  return out;
}

// One token. On a terminal: green where it is learned, dim where not, every second one underlined.
// Elsewhere: [learned], and a dot between those that are not.
std::string marked(const std::string& text, bool learned, bool odd, bool color) {
  if (!color) return learned ? fmt::format("[{}]", text) : text + "·";
  return fmt::format("\x1b[{}{}m{}\x1b[0m", learned ? "32" : "2", odd ? ";4" : "", text);
}

std::string picture(const tune::Example& example, const Tokenizer& tokenizer, bool color) {
  std::string out = "  ";
  std::size_t column = 0;
  for (std::size_t i = 0; i < example.tokens.size(); ++i) {
    const std::string_view piece = tokenizer.piece(example.tokens[i]);
    const std::string text = shown(piece);
    const std::size_t width = columns_of(text) + (color ? 0 : 2);
    if (column > 0 && column + width > kColumns) {
      out += "\n  ";
      column = 0;
    }
    out += marked(text, example.learn[i] != 0, i % 2 == 1, color);
    column += width;
    if (piece.ends_with('\n') && i + 1 < example.tokens.size()) {
      out += "\n  ";
      column = 0;
    }
  }
  return out + "\n";
}

std::string share_of(std::int64_t part, std::int64_t whole) {
  if (whole == 0) return "0 %";
  return fmt::format("{:.0f} %", 100 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string numbers(const tune::DataReport& report, std::int64_t length) {
  Table table({"records", "kept", "dropped", "truncated", "duplicates", "tokens", "learned", ""},
              "rrrrrrrl");
  table.row({human_count(report.records), human_count(report.kept), human_count(report.dropped),
             human_count(report.truncated), human_count(report.duplicates),
             human_count(report.tokens), human_count(report.learned),
             share_of(report.learned, report.tokens)});
  Table lengths({"tokens of an example", "10 %", "half", "90 %", "99 %", "longest", "limit"},
                "lrrrrrr");
  lengths.row({"at most", human_count(report.lengths.p10), human_count(report.lengths.p50),
               human_count(report.lengths.p90), human_count(report.lengths.p99),
               human_count(report.lengths.longest), human_count(length)});
  return table.text(2) + "\n" + lengths.text(2);
}

std::string checks(const tune::DataReport& report, const Output& output) {
  Table table({"", "", ""});
  for (const tune::DataCheck& check : report.checks) {
    table.row({check.ok ? "ok" : "fails", check.name, visible(check.detail)});
  }
  const std::string text = table.text(2);
  return output.bold("Checks") + text.substr(text.find('\n'));
}

void print(const Options& options, const Loaded& loaded, std::span<const std::size_t> indices,
           Output& output) {
  const tune::DataReport& report = loaded.data.report;
  std::string text =
      fmt::format("{}: {}, {}; {}, sha256 {}\n{}: {}\n\n", output.bold(visible(options.file)),
                  report.format, report.shape, human_bytes(report.bytes),
                  report.sha256.substr(0, 16), output.bold(visible(loaded.model)),
                  loaded.chat ? "its own chat template" : "no chat template, it completes text");
  text += numbers(report, options.length) + "\n" + checks(report, output);
  for (const tune::DroppedRecord& dropped : report.first_dropped) {
    text += fmt::format("\n{} {}\n", output.bold("dropped:"), visible(dropped.reason.text()));
  }
  if (report.duplicates > 0) {
    text += fmt::format("\n{} ", output.bold("duplicates:"));
    for (const tune::Duplicate& pair : report.first_duplicates) {
      text += fmt::format("{}{} {} as {}", &pair == report.first_duplicates.data() ? "" : ", ",
                          report.unit, pair.record, pair.first);
    }
    text += "\n";
  }
  for (const std::size_t i : indices) {
    const tune::Example& example = loaded.data.examples[i];
    const auto learned = std::count(example.learn.begin(), example.learn.end(), 1);
    text += fmt::format("\n{}: {} tokens{}, {} learned{}\n",
                        output.bold(fmt::format("{} {}", report.unit, example.record)),
                        example.tokens.size(), example.truncated ? " (truncated)" : "", learned,
                        output.color() ? "" : ", those in [brackets]");
    text += picture(example, loaded.tokenizer, output.color());
  }
  output.print(text);
  const auto failed = std::count_if(report.checks.begin(), report.checks.end(),
                                    [](const tune::DataCheck& check) { return !check.ok; });
  if (failed > 0) output.note(fmt::format("{} of the checks fail: see above", failed));
}

Json document(const Options& options, const Loaded& loaded, std::span<const std::size_t> indices) {
  const tune::DataReport& report = loaded.data.report;
  Json value{{"file", options.file},
             {"model", loaded.model},
             {"chat_template", loaded.chat.has_value()},
             {"format", report.format},
             {"shape", report.shape},
             {"sha256", report.sha256},
             {"bytes", report.bytes},
             {"records", report.records},
             {"kept", report.kept},
             {"dropped", report.dropped},
             {"truncated", report.truncated},
             {"duplicates", report.duplicates},
             {"tokens", report.tokens},
             {"learned_tokens", report.learned},
             {"length",
              {{"limit", options.length},
               {"p10", report.lengths.p10},
               {"p50", report.lengths.p50},
               {"p90", report.lengths.p90},
               {"p99", report.lengths.p99},
               {"longest", report.lengths.longest}}}};
  value["ok"] = std::all_of(report.checks.begin(), report.checks.end(),
                            [](const tune::DataCheck& check) { return check.ok; });
  value["checks"] = Json::array();
  for (const tune::DataCheck& check : report.checks) {
    value["checks"].push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
  }
  value["first_dropped"] = Json::array();
  for (const tune::DroppedRecord& dropped : report.first_dropped) {
    value["first_dropped"].push_back(
        {{report.unit, dropped.record}, {"error", error_document(dropped.reason)}});
  }
  value["first_duplicates"] = Json::array();
  for (const tune::Duplicate& pair : report.first_duplicates) {
    value["first_duplicates"].push_back({{report.unit, pair.record}, {"same_as", pair.first}});
  }
  value["examples"] = Json::array();
  for (const std::size_t i : indices) {
    const tune::Example& example = loaded.data.examples[i];
    Json pieces = Json::array();
    for (const formats::TokenId id : example.tokens) pieces.push_back(loaded.tokenizer.piece(id));
    value["examples"].push_back({{report.unit, example.record},
                                 {"truncated", example.truncated},
                                 {"tokens", example.tokens},
                                 {"learn", example.learn},
                                 {"pieces", std::move(pieces)}});
  }
  return value;
}

Status run(const Options& options, Output& output) {
  const auto loaded = load_all(options);
  if (!loaded) return loaded.error();
  const auto indices = chosen(options, loaded->data);
  if (!indices) return indices.error();
  if (output.json()) {
    output.document(document(options, *loaded, *indices));
  } else {
    print(options, *loaded, *indices, output);
  }
  return {};
}

}  // namespace

const Verb& data_verb() {
  static const Verb kVerb = make_verb(
      "data", "what a model would be trained on, token by token with the mask visible",
      "hone data examples.jsonl --model smollm2\nhone data table.csv --model smollm2 --line 7",
      declare, run);
  return kVerb;
}

}  // namespace hone::cli
