// A verb's options and positional arguments: declared once, read from the command line, printed as
// help.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::cli {

// Values that a number may have, both ends included.
struct Integers {
  std::int64_t least = std::numeric_limits<std::int64_t>::min();
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
};
struct Numbers {
  double least = -std::numeric_limits<double>::max();
  double most = std::numeric_limits<double>::max();
};

// "600MB", "2GiB", "100": bytes, more than none.
Result<std::int64_t> bytes_of_text(std::string_view text);

// The variables given are written by parse() and must outlive it. What they hold before is the
// default, which the help shows. `names` is "--context" or "-n,--tokens".
class Arguments {
 public:
  explicit Arguments(std::string_view verb);
  ~Arguments();
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  void positional(const std::string& name, std::string& value, const std::string& about);
  void optional_positional(const std::string& name, std::string& value, const std::string& about);
  // None or more, all that are left.
  void positionals(const std::string& name, std::vector<std::string>& values,
                   const std::string& about);
  // MODEL, the same words everywhere.
  void model(std::string& value);

  void flag(const std::string& names, bool& value, const std::string& about);
  void option(const std::string& names, std::string& value, const std::string& about,
              const std::string& placeholder = "TEXT");
  void option(const std::string& names, std::optional<std::string>& value, const std::string& about,
              const std::string& placeholder = "TEXT");
  void option(const std::string& names, std::int64_t& value, const std::string& about,
              Integers among = {});
  void option(const std::string& names, double& value, const std::string& about,
              Numbers among = {});
  // Bytes, given as 600MB or 2GiB; more than none.
  void size(const std::string& names, std::int64_t& value, const std::string& about);
  // May be given several times.
  void option(const std::string& names, std::vector<std::string>& values, const std::string& about,
              const std::string& placeholder = "TEXT");
  void choice(const std::string& names, std::string& value, std::span<const std::string_view> among,
              const std::string& about);
  void choice(const std::string& names, std::string& value,
              std::initializer_list<std::string_view> among, const std::string& about);

  // Reads what follows the verb. kInvalidArgument names the argument and, where one is near, the
  // option that was meant.
  Status parse(std::span<const std::string> words);
  bool wants_help() const;
  bool wants_json() const;
  bool wants_quiet() const;
  // Usage, arguments, options.
  std::string help() const;
  std::vector<std::string> option_names() const;  // "--context"

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hone::cli
