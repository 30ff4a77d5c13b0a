// Loads a data set, counts what became of its records, and checks what is commonly wrong.
// SPDX-License-Identifier: Apache-2.0
#include "tune/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

#include "base/file.h"
#include "base/human.h"
#include "base/sha256.h"
#include "formats/conversation.h"
#include "tune/data/record_file.h"

namespace hone::tune {
namespace {

using formats::TokenId;

constexpr std::size_t kShown = 10;  // dropped records and duplicates that a report names

// What the examples say about template and tokenizer, summed up.
struct Tally {
  std::size_t answers = 0;
  std::size_t stopped = 0;
  std::size_t spliced = 0;
  std::size_t unserved = 0;
  std::size_t foreign = 0;
  std::size_t two_bos = 0;
  std::size_t first_two_bos = 0;  // records
  std::size_t first_foreign = 0;
  std::size_t first_unstopped = 0;
};

void count(const MadeExample& made, Tally& tally) {
  const std::size_t record = made.example.record;
  const auto first = [record](std::size_t& place) { place = place == 0 ? record : place; };
  tally.answers += made.answers;
  tally.stopped += made.stopped;
  tally.spliced += made.spliced;
  tally.unserved += made.unserved;
  tally.foreign += made.foreign;
  tally.two_bos += made.one_bos ? 0 : 1;
  if (!made.one_bos) first(tally.first_two_bos);
  if (made.foreign > 0) first(tally.first_foreign);
  if (made.stopped < made.answers) first(tally.first_unstopped);
}

std::string counted(std::size_t count) { return human_count(static_cast<std::int64_t>(count)); }

std::string of(std::size_t count, std::size_t total) {
  return fmt::format("{} of {}", counted(count), counted(total));
}

// ", first in line 7", or nothing.
std::string first_in(const DataReport& report, std::size_t place) {
  return place == 0 ? "" : fmt::format(", first in {} {}", report.unit, place);
}

DataCheck check_stop(const ExampleMaker& maker, const Tally& tally, const DataReport& report) {
  DataCheck check{"stop token inside the mask", tally.stopped == tally.answers, ""};
  const TokenId stop =
      maker.tokenizer.eot() != formats::kNoToken ? maker.tokenizer.eot() : maker.tokenizer.eos();
  if (stop == formats::kNoToken) {
    return {check.name, false, "the tokenizer names no stop token: the model would never stop"};
  }
  check.detail =
      fmt::format("{} answers end with a learned stop token", of(tally.stopped, tally.answers));
  if (!check.ok) check.detail += first_in(report, tally.first_unstopped);
  return check;
}

DataCheck check_bos(const ExampleMaker& maker, const Tally& tally, const DataReport& report) {
  const formats::Tokenizer& tokenizer = maker.tokenizer;
  DataCheck check{"one beginning-of-sequence token", tally.two_bos == 0, ""};
  if (tokenizer.bos() == formats::kNoToken) {
    check.detail = "the tokenizer has none";
  } else if (!check.ok) {
    check.detail = fmt::format("{} examples have none or too many{}", counted(tally.two_bos),
                               first_in(report, tally.first_two_bos));
  } else if (maker.conventions.bos_opens_turns) {
    check.detail =
        fmt::format("{} opens each turn, and nowhere twice", tokenizer.piece(tokenizer.bos()));
  } else {
    check.detail = fmt::format(
        "{} {}", tokenizer.piece(tokenizer.bos()),
        tokenizer.vocabulary().add_bos ? "begins every example" : "is nowhere more than once");
  }
  return check;
}

DataCheck check_markers(const ExampleMaker& maker) {
  DataCheck check{"special strings are single ids", true, ""};
  std::string broken;
  for (const std::string& marker : maker.conventions.markers) {
    const auto ids = formats::conversation_tokens(maker.tokenizer, marker);
    if (ids.size() == 1) {
      check.detail += fmt::format("{}{} {}", check.detail.empty() ? "" : ", ", marker, ids[0]);
    } else {
      check.ok = false;
      broken +=
          fmt::format("{}{} becomes {} tokens", broken.empty() ? "" : ", ", marker, ids.size());
    }
  }
  if (!check.ok) check.detail = broken + ": template and tokenizer do not fit each other";
  if (check.detail.empty()) check.detail = "there are none";
  return check;
}

DataCheck check_served(const ExampleMaker& maker, const Tally& tally) {
  DataCheck check{"trained as it is served", tally.unserved == 0, ""};
  if (maker.chat == nullptr) {
    check.detail = "no template is used: texts are trained as `hone run --raw` reads them";
  } else if (check.ok) {
    check.detail = "every answer follows the very tokens that `hone run` would give";
  } else {
    check.detail = fmt::format("{} answers are left out: the template shows their prompt otherwise",
                               counted(tally.unserved));
  }
  if (tally.spliced > 0) {
    check.detail +=
        fmt::format("; {} were cut from their prompt within a token", counted(tally.spliced));
  }
  return check;
}

DataCheck check_foreign(const Tally& tally, const DataReport& report) {
  DataCheck check{"no special strings in the data", tally.foreign == 0, "none"};
  if (!check.ok) {
    check.detail = fmt::format("{} in messages: they would end or open turns{}",
                               counted(tally.foreign), first_in(report, tally.first_foreign));
  }
  return check;
}

std::string percent(double share) { return fmt::format("{:.3g} %", share * 100); }

DataCheck check_dropped(const DataReport& report, const DataOptions& options) {
  const auto records = static_cast<double>(report.records);
  const double share = static_cast<double>(report.dropped) / std::max(records, 1.0);
  return {fmt::format("at most {} of the records dropped", percent(options.most_dropped)),
          share <= options.most_dropped,
          fmt::format("{} of {}", human_count(report.dropped), human_count(report.records))};
}

// The error for a file of which too much is unusable: the first reason in full, more as a list.
Error too_many_dropped(const DataReport& report, const DataOptions& options,
                       const std::string& name) {
  const Error& first = report.first_dropped.front().reason;
  Error error = first.in(name);
  error.what = fmt::format(
      "{} of {} records ({}) cannot be used: {}", human_count(report.dropped),
      human_count(report.records),
      percent(static_cast<double>(report.dropped) / static_cast<double>(report.records)),
      first.what);
  // Others in a line each; those that say the same as the first, by their places alone.
  std::vector<std::string> same;
  std::size_t listed = 1;
  for (std::size_t i = 1; i < report.first_dropped.size(); ++i) {
    const Error& more = report.first_dropped[i].reason;
    if (more.what == first.what) {
      same.push_back(more.where);
    } else if (listed < 5) {
      error.found += fmt::format("\n            {}: {}{}{}", more.where, more.what,
                                 more.found.empty() ? "" : ": ", more.found);
      ++listed;
    }
  }
  if (!same.empty()) {
    error.found += fmt::format("\n            the same in {}{}", fmt::join(same, ", "),
                               report.dropped > std::ssize(report.first_dropped) ? ", …" : "");
  }
  error.advice += fmt::format(
      "{}loading stops when more than {} would be left out, be it one record",
      error.advice.empty() ? "mend the records; " : "; ", percent(options.most_dropped));
  return error;
}

void drop(std::size_t record, Error reason, DataReport& report) {
  ++report.dropped;
  report.first_dropped.push_back({record, std::move(reason)});
}

std::uint64_t hash_of(const std::vector<TokenId>& tokens) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, a token at a time
  for (const TokenId id : tokens) hash = (hash ^ static_cast<std::uint32_t>(id)) * 0x100000001b3;
  return hash;
}

void count_duplicates(const std::vector<Example>& examples, DataReport& report) {
  std::unordered_multimap<std::uint64_t, std::size_t> seen;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const std::uint64_t hash = hash_of(examples[i].tokens);
    const auto [begin, end] = seen.equal_range(hash);
    const auto same = std::find_if(begin, end, [&](const auto& entry) {
      return examples[entry.second].tokens == examples[i].tokens;
    });
    if (same == end) {
      seen.emplace(hash, i);
      continue;
    }
    ++report.duplicates;
    if (report.first_duplicates.size() < kShown) {
      report.first_duplicates.push_back({examples[i].record, examples[same->second].record});
    }
  }
}

void count_lengths(const std::vector<Example>& examples, DataReport& report) {
  std::vector<std::int64_t> lengths;
  for (const Example& example : examples) {
    lengths.push_back(static_cast<std::int64_t>(example.tokens.size()));
    report.tokens += lengths.back();
    report.learned += std::count(example.learn.begin(), example.learn.end(), 1);
    report.truncated += example.truncated ? 1 : 0;
  }
  if (lengths.empty()) return;
  std::sort(lengths.begin(), lengths.end());
  // The smallest length that `share` of the examples do not exceed.
  const auto quantile = [&lengths](double share) {
    const auto rank =
        static_cast<std::size_t>(std::ceil(share * static_cast<double>(lengths.size())));
    return lengths[std::clamp<std::size_t>(rank, 1, lengths.size()) - 1];
  };
  report.lengths = {quantile(0.1), quantile(0.5), quantile(0.9), quantile(0.99), lengths.back()};
}

std::string shapes_of(const std::vector<Record>& records) {
  std::array<std::size_t, kShapes> counts{};
  for (const Record& record : records) ++counts[static_cast<std::size_t>(record.shape)];
  std::string text;
  for (std::size_t i = 0; i < kShapes; ++i) {
    if (counts[i] == 0) continue;
    const std::string_view name = shape_name(static_cast<Shape>(i));
    if (counts[i] == records.size()) return std::string(name);
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, counts[i]);
  }
  return text;
}

Status check_options(const DataOptions& options) {
  const auto wrong = [](std::string found, std::string expected) {
    return Error{ErrorCode::kInvalidArgument,
                 "an option of the data makes no sense",
                 "",
                 std::move(found),
                 std::move(expected),
                 ""};
  };
  if (options.length < 2) {
    return wrong(fmt::format("a length of {} tokens", options.length), "at least 2");
  }
  if (!(options.most_dropped >= 0 && options.most_dropped <= 1)) {
    return wrong(fmt::format("{} of the records may be dropped", options.most_dropped),
                 "a share from 0 to 1");
  }
  return {};
}

void make_examples(const ExampleMaker& maker, const RecordFile& file, Dataset& dataset,
                   Tally& tally) {
  DataReport& report = dataset.report;
  const auto keep = [&](MadeExample made) {
    count(made, tally);
    dataset.examples.push_back(std::move(made.example));
  };
  if (file.form == FileForm::kText) {
    for (MadeExample& piece : make_pieces(maker, file.records[0].text)) keep(std::move(piece));
    report.records = static_cast<std::int64_t>(dataset.examples.size());
    return;
  }
  const bool by_line = report.unit == "line";
  for (const BadRecord& bad : file.bad) drop(by_line ? bad.line : bad.number, bad.reason, report);
  for (const Record& record : file.records) {
    const std::size_t place = by_line ? record.line : record.number;
    auto made = make_example(maker, record);
    if (made) {
      made->example.record = place;
      keep(*std::move(made));
    } else {
      drop(place, made.error().in(place_of(file.form, record.number, record.line)), report);
    }
  }
  report.records = static_cast<std::int64_t>(file.records.size() + file.bad.size());
  std::stable_sort(
      report.first_dropped.begin(), report.first_dropped.end(),
      [](const DroppedRecord& a, const DroppedRecord& b) { return a.record < b.record; });
  if (report.first_dropped.size() > kShown) report.first_dropped.resize(kShown);
}

}  // namespace

Result<Dataset> dataset_of_text(std::string_view text, const std::string& name,
                                const formats::Tokenizer& tokenizer,
                                const formats::ChatTemplate* chat, const DataOptions& options) {
  HONE_RETURN_IF_ERROR(check_options(options));
  const auto file = read_records(text, name);
  if (!file) return file.error();
  // Plain text and finished texts need no template; one that fails must not stop them.
  const bool chats = std::any_of(file->records.begin(), file->records.end(),
                                 [](const Record& r) { return r.shape != Shape::kText; });
  auto maker =
      make_example_maker(tokenizer, chats ? chat : nullptr, options.length, options.everything);
  if (!maker) return maker.error();

  Dataset dataset;
  DataReport& report = dataset.report;
  report.format = file_form_name(file->form);
  report.shape = shapes_of(file->records);
  report.unit = file->form == FileForm::kText   ? "piece"
                : file->form == FileForm::kJson ? "record"
                                                : "line";
  report.bytes = static_cast<std::int64_t>(text.size());
  report.sha256 = sha256(std::as_bytes(std::span(text)));
  Tally tally;
  make_examples(*maker, *file, dataset, tally);
  report.kept = static_cast<std::int64_t>(dataset.examples.size());
  const DataCheck dropped = check_dropped(report, options);
  if (!dropped.ok || (report.kept == 0 && report.dropped > 0)) {
    return too_many_dropped(report, options, name);
  }
  if (report.kept == 0) {
    return Error{
        ErrorCode::kCorrupt, "the file holds no examples", name, "no records", "at least one", ""};
  }
  count_duplicates(dataset.examples, report);
  count_lengths(dataset.examples, report);
  report.checks = {
      check_stop(*maker, tally, report), check_bos(*maker, tally, report), check_markers(*maker),
      check_served(*maker, tally),       check_foreign(tally, report),     dropped};
  return dataset;
}

Result<Dataset> load_dataset(const std::string& path, const formats::Tokenizer& tokenizer,
                             const formats::ChatTemplate* chat, const DataOptions& options) {
  const auto text = read_file(path);
  if (!text) return text.error();
  return dataset_of_text(*text, path, tokenizer, chat, options);
}

}  // namespace hone::tune
