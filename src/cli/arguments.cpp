// The parser is CLI11; numbers and choices are read here, for errors that say what was expected.
// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/nearest.h"

namespace hone::cli {
namespace {

Error wrong_value(const std::string& names, const std::string& found, std::string expected,
                  std::string advice = "") {
  return Error{
      ErrorCode::kInvalidArgument, fmt::format("{} has a value that makes no sense", names),
      "the command line",          fmt::format("'{}'", found),
      std::move(expected),         std::move(advice)};
}

template <typename T>
bool read_number(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto [at, code] = std::from_chars(text.data(), end, value);
  return code == std::errc() && at == end;
}

// "64", "-3", and with a unit as sizes are often written: "4k" is 4,000, "4Ki" is 4,096.
bool read_integer(std::string text, std::int64_t& value) {
  std::int64_t factor = 1;
  constexpr std::array<std::pair<std::string_view, std::int64_t>, 6> kUnits = {
      {{"Ki", 1 << 10},
       {"Mi", 1 << 20},
       {"Gi", 1 << 30},
       {"k", 1000},
       {"M", 1'000'000},
       {"G", 1'000'000'000}}};
  for (const auto& [unit, size] : kUnits) {
    if (!text.ends_with(unit)) continue;
    text.resize(text.size() - unit.size());
    factor = size;
    break;
  }
  std::int64_t count = 0;
  return read_number(text, count) && !__builtin_mul_overflow(count, factor, &value);
}

std::string range_text(const Integers& among) {
  const Integers all;
  if (among.least == all.least && among.most == all.most) return "a whole number";
  if (among.most == all.most) return fmt::format("a whole number, at least {}", among.least);
  return fmt::format("a whole number from {} to {}", among.least, among.most);
}

std::string range_text(const Numbers& among) {
  const Numbers all;
  if (among.least == all.least && among.most == all.most) return "a number";
  if (among.most == all.most) return fmt::format("a number, at least {}", among.least);
  return fmt::format("a number from {} to {}", among.least, among.most);
}

}  // namespace

Result<std::int64_t> bytes_of_text(std::string_view text) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, text.data() + text.size());
  std::erase(unit, ' ');
  std::ranges::transform(unit, unit.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  double factor = 0;
  if (unit.empty() || unit == "B") factor = 1;
  if (unit == "K" || unit == "KB") factor = 1e3;
  if (unit == "M" || unit == "MB") factor = 1e6;
  if (unit == "G" || unit == "GB") factor = 1e9;
  if (unit == "KIB") factor = 1024;
  if (unit == "MIB") factor = 1024.0 * 1024;
  if (unit == "GIB") factor = 1024.0 * 1024 * 1024;
  if (code != std::errc() || factor == 0 || !(value > 0) || value * factor > 1e18) {
    return Error{ErrorCode::kInvalidArgument,
                 "this is no size in bytes",
                 "",
                 std::string(text),
                 "a number and a unit, as 600MB or 2GiB",
                 ""};
  }
  return static_cast<std::int64_t>(value * factor);
}

struct Arguments::State {
  CLI::App app;
  Status status;  // the first value that could not be read
  bool help = false;
  bool json = false;
  bool quiet = false;

  // `read` takes the text and returns what is wrong with it.
  CLI::Option* add(const std::string& names, const std::string& about,
                   const std::string& placeholder, const std::string& otherwise,
                   std::function<Status(const std::string&)> read) {
    CLI::Option* option = app.add_option_function<std::string>(
        names,
        [this, read = std::move(read)](const std::string& text) {
          Status result = read(text);
          if (status.ok()) status = std::move(result);
        },
        otherwise.empty() ? about : fmt::format("{} [{}]", about, otherwise));
    option->type_name(placeholder);
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    return option;
  }
};

Arguments::Arguments(std::string_view verb) : state_(std::make_unique<State>()) {
  CLI::App& app = state_->app;
  app.name(fmt::format("hone {}", verb));
  app.allow_extras();  // reported with the nearest name instead
  app.set_help_flag();
  app.get_formatter()->column_width(32);
  app.add_flag("-h,--help", state_->help, "show this");
  app.add_flag("--json", state_->json, "one JSON document on standard output, errors too");
  app.add_flag("--quiet", state_->quiet, "no notes and no progress on standard error");
}

Arguments::~Arguments() = default;

void Arguments::positional(const std::string& name, std::string& value, const std::string& about) {
  state_->app.add_option(name, value, about)->required()->type_name("");
}

void Arguments::optional_positional(const std::string& name, std::string& value,
                                    const std::string& about) {
  state_->app.add_option(name, value, about)->type_name("");
}

void Arguments::positionals(const std::string& name, std::vector<std::string>& values,
                            const std::string& about) {
  state_->app.add_option(name, values, about)->type_name("");
}

void Arguments::model(std::string& value) {
  positional("MODEL", value, "a known model's name, a GGUF file, or a Hugging Face folder");
}

void Arguments::flag(const std::string& names, bool& value, const std::string& about) {
  state_->app.add_flag(names, value, about);
}

void Arguments::option(const std::string& names, std::string& value, const std::string& about,
                       const std::string& placeholder) {
  state_->add(names, about, placeholder, value, [&value](const std::string& text) {
    value = text;
    return Status();
  });
}

void Arguments::option(const std::string& names, std::optional<std::string>& value,
                       const std::string& about, const std::string& placeholder) {
  state_->add(names, about, placeholder, "", [&value](const std::string& text) {
    value = text;
    return Status();
  });
}

void Arguments::option(const std::string& names, std::int64_t& value, const std::string& about,
                       Integers among) {
  state_->add(names, about, "N", fmt::format("{}", value),
              [&value, names, among](const std::string& text) -> Status {
                std::int64_t read = 0;
                if (!read_integer(text, read) || read < among.least || read > among.most) {
                  return wrong_value(names, text, range_text(among));
                }
                value = read;
                return {};
              });
}

void Arguments::option(const std::string& names, double& value, const std::string& about,
                       Numbers among) {
  state_->add(names, about, "X", fmt::format("{}", value),
              [&value, names, among](const std::string& text) -> Status {
                double read = 0;
                const bool fits = read_number(text, read) && std::isfinite(read) &&
                                  read >= among.least && read <= among.most;
                if (!fits) return wrong_value(names, text, range_text(among));
                value = read;
                return {};
              });
}

void Arguments::size(const std::string& names, std::int64_t& value, const std::string& about) {
  state_->add(names, about, "SIZE", "", [&value, names](const std::string& text) -> Status {
    const auto read = bytes_of_text(text);
    if (!read) return read.error().in(names);
    value = *read;
    return {};
  });
}

void Arguments::option(const std::string& names, std::vector<std::string>& values,
                       const std::string& about, const std::string& placeholder) {
  state_->app.add_option(names, values, about)
      ->type_name(placeholder)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void Arguments::choice(const std::string& names, std::string& value,
                       std::span<const std::string_view> among, const std::string& about) {
  const std::vector<std::string_view> kept(among.begin(), among.end());
  state_->add(names, fmt::format("{}: {}", about, fmt::join(kept, ", ")), "NAME", value,
              [&value, names, kept](const std::string& text) -> Status {
                for (const std::string_view name : kept) {
                  if (name != text) continue;
                  value = text;
                  return {};
                }
                const std::string meant = nearest(text, kept);
                return wrong_value(names, text, fmt::format("one of {}", fmt::join(kept, ", ")),
                                   meant.empty() ? "" : fmt::format("did you mean '{}'?", meant));
              });
}

void Arguments::choice(const std::string& names, std::string& value,
                       std::initializer_list<std::string_view> among, const std::string& about) {
  choice(names, value, std::span(among.begin(), among.size()), about);
}

Status Arguments::parse(std::span<const std::string> words) {
  std::vector<std::string> reversed(words.rbegin(), words.rend());
  std::string trouble;
  try {
    state_->app.parse(std::move(reversed));
  } catch (const CLI::Error& error) {
    trouble = error.what();
  }
  // An unknown option explains best what went wrong, even if it was its value that tripped.
  for (const std::string& extra : state_->app.remaining()) {
    const bool option = extra.size() > 1 && extra[0] == '-';
    const std::vector<std::string> known = option_names();
    const std::vector<std::string_view> names(known.begin(), known.end());
    const std::string meant = option ? nearest(extra.substr(0, extra.find('=')), names) : "";
    return Error{
        ErrorCode::kInvalidArgument,
        option ? fmt::format("there is no option {}", extra) : "there is one argument too many",
        "the command line",
        option ? "" : fmt::format("'{}'", extra),
        "",
        meant.empty() ? fmt::format("see `{} --help`", state_->app.get_name())
                      : fmt::format("did you mean {}?", meant)};
  }
  if (state_->help) return {};
  if (!state_->status.ok()) return state_->status;
  if (trouble.empty()) return {};
  return Error{ErrorCode::kInvalidArgument,
               trouble,
               "the command line",
               "",
               "",
               fmt::format("see `{} --help`", state_->app.get_name())};
}

bool Arguments::wants_help() const { return state_->help; }
bool Arguments::wants_json() const { return state_->json; }
bool Arguments::wants_quiet() const { return state_->quiet; }

std::string Arguments::help() const { return state_->app.help(); }

std::vector<std::string> Arguments::option_names() const {
  std::vector<std::string> names;
  for (const CLI::Option* option : state_->app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

}  // namespace hone::cli
