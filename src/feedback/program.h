// Asks a program of the user's: something on its standard input, its answer on the output.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace hone::feedback {

struct ProgramOptions {
  double seconds = 60;                            // the longest that it may take; then it is killed
  std::size_t most_bytes = std::size_t{1} << 20;  // of its answer
};

// Runs `command` by /bin/sh in a process group of its own and returns what it printed. The
// end of what it prints to standard error stands in errors:
// kUnsupported where it cannot be started, kIo where it fails, is killed by a signal, takes too
// long or says too much.
Result<std::string> ask_program(const std::string& command, std::string_view input,
                                const ProgramOptions& options = {});

}  // namespace hone::feedback
