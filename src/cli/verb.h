// What a verb is: its words for the help, the options that it declares, the call that it makes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "base/status.h"
#include "cli/arguments.h"
#include "cli/output.h"

namespace hone::cli {

// What remains to be done once the arguments are read.
using Action = std::function<Status(Output& output)>;

struct Verb {
  std::string_view name;     // "inspect"
  std::string_view summary;  // one line, no full stop: "show what a model file holds"
  std::string_view example;  // one or more whole commands, a line each
  // Declares options into `arguments` and returns the action, which is called after they are read.
  std::function<Action(Arguments& arguments)> declare;
};

// A verb reads as: a struct of options, a function that declares them, a function that runs.
//
//   struct Options { std::string model; };
//   void declare(Options& options, Arguments& arguments) { arguments.model(options.model); }
//   Status run(const Options& options, Output& output) { … }
//   const Verb& inspect_verb() {
//     static const Verb kVerb =
//         make_verb("inspect", "show what a model file holds", "hone inspect smollm2", declare,
//         run);
//     return kVerb;
//   }
template <typename Options>
Verb make_verb(std::string_view name, std::string_view summary, std::string_view example,
               void (*declare)(Options&, Arguments&), Status (*run)(const Options&, Output&)) {
  return Verb{name, summary, example, [declare, run](Arguments& arguments) -> Action {
                const auto options = std::make_shared<Options>();
                declare(*options, arguments);
                return [options, run](Output& output) { return run(*options, output); };
              }};
}

}  // namespace hone::cli
