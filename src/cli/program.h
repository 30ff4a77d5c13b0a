// The program `hone`: finds the verb, reads its arguments, runs it, and turns errors into text and
// an exit status.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "base/status.h"

namespace hone::cli {

// `words` without the program's name. Returns the exit status (docs/exit-codes.md).
int run_program(std::span<const std::string> words);

int exit_status(ErrorCode code);
inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells say it

// From now on Ctrl-C sets a flag instead of ending the program: for work that has to clean up
// behind itself. A second Ctrl-C ends it all the same. The program then exits with
// kExitInterrupted, whatever the verb returns.
void catch_interrupts();
bool interrupted();

}  // namespace hone::cli
