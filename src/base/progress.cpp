// The progress line.
// SPDX-License-Identifier: Apache-2.0
#include "base/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/human.h"

namespace hone {
namespace {

int terminal_columns(int descriptor) {
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

bool variable_is_set(const char* name) {
  const char* value = std::getenv(name);  // NOLINT read before threads that could set it
  return value != nullptr && *value != '\0';
}

}  // namespace

bool is_terminal(int descriptor) {
  const char* kind = std::getenv("TERM");  // NOLINT as above
  return isatty(descriptor) == 1 && !(kind != nullptr && std::string_view(kind) == "dumb");
}

bool wants_color(int descriptor) { return !variable_is_set("NO_COLOR") && is_terminal(descriptor); }

std::string progress_line(const std::string& label, std::int64_t done, std::int64_t total,
                          std::int64_t done_before, double seconds, int columns, ProgressUnit unit,
                          const std::string& note) {
  const auto amount = [unit](std::int64_t value) {
    return unit == ProgressUnit::kBytes ? human_bytes(value) : human_count(value);
  };
  const double rate = seconds > 0 ? static_cast<double>(done - done_before) / seconds : 0;
  std::string tail = amount(done);
  std::string head = label;
  if (total > 0) {
    const double fraction =
        std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
    constexpr int kBar = 20;
    const int full = static_cast<int>(fraction * kBar);
    // Rounded down: 100% means complete.
    head += fmt::format(" {:3}%", static_cast<int>(fraction * 100));
    if (note.empty()) {
      head += fmt::format(" [{}{}]", std::string(full, '#'), std::string(kBar - full, ' '));
    }
    tail += " of " + amount(total);
  }
  if (rate > 0) {
    if (note.empty()) tail += fmt::format(", {}/s", amount(static_cast<std::int64_t>(rate)));
    if (total > done) {
      tail += fmt::format(", {} left", human_duration(static_cast<double>(total - done) / rate));
    }
  }
  if (!note.empty()) tail += ", " + note;
  std::string line = head + " " + tail;
  // One short of the width: writing the last column would wrap on some terminals.
  const auto limit = static_cast<std::size_t>(std::max(columns - 1, 0));
  if (line.size() > limit) line.resize(limit);
  return line;
}

Progress::Progress(std::string label, std::int64_t total, std::int64_t done_before,
                   ProgressUnit unit)
    : label_(std::move(label)),
      total_(total),
      before_(done_before),
      done_(done_before),
      unit_(unit),
      visible_(is_terminal(STDERR_FILENO)),
      start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  if (!drawn_) return;
  draw();
  std::fputc('\n', stderr);
}

void Progress::update(std::int64_t done) {
  done_ = done;
  if (!visible_) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  draw();
}

void Progress::draw() {
  drawn_ = true;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::string line = progress_line(label_, done_, total_, before_, seconds,
                                         terminal_columns(STDERR_FILENO), unit_, note_);
  std::fprintf(stderr, "\r\x1b[K%s", line.c_str());  // back to the start, erase, write
  std::fflush(stderr);
}

}  // namespace hone
