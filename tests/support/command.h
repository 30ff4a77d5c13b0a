// A program run to its end, with what it said.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>

namespace hone::testing_commands {

struct Finished {
  int status = -1;  // of the exit; 128 + signal if a signal ended it; -1: not started
  std::string output;
};

inline std::string quoted(std::string_view argument) {
  std::string out = "'";
  for (const char c : argument) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// Arguments reach the program as they are. Standard error comes with the output where `errors`.
inline Finished run(std::initializer_list<std::string_view> arguments, bool errors = true) {
  std::string command;
  for (const std::string_view argument : arguments) command += quoted(argument) + " ";
  command += errors ? "</dev/null 2>&1" : "</dev/null";
  Finished out;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  std::array<char, 4096> buffer;
  for (std::size_t n = 0; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    out.output.append(buffer.data(), n);
  }
  const int status = pclose(pipe);
  out.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return out;
}

}  // namespace hone::testing_commands
