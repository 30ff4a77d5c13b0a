// A line on the terminal that says how far a long task is; silent when nobody watches.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace hone {

// True where escape sequences make sense: a terminal that is not "dumb", and no NO_COLOR in the
// environment (no-color.org). `descriptor`: 1 for standard output, 2 for standard error.
bool wants_color(int descriptor);
bool is_terminal(int descriptor);

// What is counted: bytes, or pieces of work.
enum class ProgressUnit : std::uint8_t { kBytes, kCount };

// "model.gguf  45% [#########           ] 44.3 MB of 98.4 MB, 12.0 MB/s, 4.51 s left", at most
// `columns` wide. total 0: unknown. seconds: since the start.
// `note`, if there is one, stands in place of the bar and the rate, at the end.
// done_before: bytes that were there at the start (a resumed task), which the rate leaves out.
std::string progress_line(const std::string& label, std::int64_t done, std::int64_t total,
                          std::int64_t done_before, double seconds, int columns,
                          ProgressUnit unit = ProgressUnit::kBytes, const std::string& note = {});

// Rewrites one line on standard error at most ten times a second.
class Progress {
 public:
  Progress(std::string label, std::int64_t total, std::int64_t done_before = 0,
           ProgressUnit unit = ProgressUnit::kBytes);
  ~Progress();  // leaves the last state on the screen and goes to the next line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void set_total(std::int64_t total) { total_ = total; }
  void set_note(std::string note) { note_ = std::move(note); }
  void update(std::int64_t done);

 private:
  void draw();

  std::string label_;
  std::string note_;
  std::int64_t total_;
  std::int64_t before_;
  std::int64_t done_;
  ProgressUnit unit_;
  bool visible_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
};

}  // namespace hone
