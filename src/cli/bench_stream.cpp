// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/descriptor.h"
#include "base/human.h"
#include "base/system.h"
#include "base/timing.h"
#include "feedback/gradient.h"
#include "tune/setup.h"

namespace hone::cli {
namespace {

constexpr std::size_t kReadBytes = 1 << 20;

void forget(int file) { ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED); }

// Seconds of reading the file from its start to its end, as a stream does: a megabyte at a time,
// nothing kept.
double read_whole(int file, std::int64_t bytes) {
  std::vector<std::byte> buffer(kReadBytes);
  forget(file);
  const double start = seconds_now();
  for (std::int64_t at = 0; at < bytes;) {
    const ssize_t count = ::pread(file, buffer.data(), buffer.size(), at);
    if (count <= 0) break;
    ::posix_fadvise(file, at, count, POSIX_FADV_DONTNEED);
    at += count;
  }
  return seconds_now() - start;
}

struct Measured {
  std::vector<double> steps, reads, ratios;
  double loss = 0;
};

}  // namespace

Status bench_stream(const ModelOptions& model, std::int64_t batch, std::int64_t length,
                    std::int64_t steps, Output& output) {
  engine::SessionOptions how = session_options(model);
  how.context = 32;
  auto session = engine::Session::open(model.model, how);
  if (!session) return session.error();
  // What a machine keeps after its first run of the model is there before the first measurement.
  const auto kept = (*session)->keep_packed(0);
  if (!kept) return kept.error();
  if (*kept) session = engine::Session::open(model.model, how);
  if (!session) return session.error();
  engine::WeightStream* stream = (*session)->weights().stream();
  if (stream == nullptr) {
    return Error{ErrorCode::kInvalidArgument,
                 "this model is not streamed: its weights fit into memory",
                 "",
                 "",
                 "--stream SIZE",
                 "hone bench stream MODEL --stream 100MB"};
  }
  const Descriptor file{::open((*session)->source().path().c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.number < 0) {
    return Error{ErrorCode::kUnsupported,
                 "only a model of one file can be measured",
                 (*session)->source().path(),
                 "",
                 "a GGUF file",
                 ""};
  }
  feedback::GradientOptions options;
  options.compile = (*session)->options().compile;
  options.forward_only = true;
  feedback::Gradient forward(**session, options);
  feedback::TokenBatch tokens;
  for (const tune::Example& example :
       tune::random_examples(batch, length, (*session)->config().vocabulary, 1)) {
    tokens.add(example.tokens, example.learn);
  }
  const auto first = forward.run(tokens);
  if (!first) return first.error();
  stream->reset_stats();
  Measured measured;
  const std::int64_t bytes = (*session)->source().file_bytes();
  for (std::int64_t i = 0; i < steps; ++i) {
    measured.reads.push_back(read_whole(file.number, bytes));
    forget(file.number);
    const double start = seconds_now();
    const auto outcome = forward.run(tokens);
    if (!outcome) return outcome.error();
    measured.steps.push_back(seconds_now() - start);
    measured.ratios.push_back(measured.steps.back() / measured.reads.back());
    measured.loss = outcome->loss / outcome->weight;
  }
  const engine::StreamStats stats = stream->stats();
  const auto runs = static_cast<double>(std::max<std::int64_t>(stats.runs, 1));
  const double read = stats.read_seconds / runs;
  const double pack = stats.pack_seconds / runs;
  const double wait = stats.wait_seconds / runs;
  const double loading = std::max(read, pack);  // one thread reads, one packs
  const double compute = stats.run_seconds / runs - wait;
  const double hidden = loading - wait;
  const double possible = std::min(loading, compute);
  const std::int64_t peak = resident_memory().peak;
  if (output.json()) {
    output.document(Json{{"step_seconds", median(measured.steps)},
                         {"read_file_seconds", median(measured.reads)},
                         {"step_over_read", median(measured.ratios)},
                         {"stream_read_seconds", read},
                         {"stream_pack_seconds", pack},
                         {"wait_seconds", wait},
                         {"compute_seconds", compute},
                         {"hidden_of_loading", hidden / loading},
                         {"hidden_of_possible", hidden / possible},
                         {"bytes_a_step", static_cast<double>(stats.bytes_read) / runs},
                         {"file_bytes", bytes},
                         {"window_bytes", stream->window()},
                         {"peak_bytes", peak},
                         {"loss", measured.loss}});
    return {};
  }
  output.print(fmt::format(
      "step     {} of {} x {} tokens, {:.2f} times the {} that reading the file takes\n"
      "loading  {} reading and {} packing, side by side; computing {}, waiting {}\n"
      "overlap  {:.0f} % of loading is hidden, {:.0f} % of what could be\n"
      "memory   {} at most, window {}, file {}, {} read a step\n",
      human_duration(median(measured.steps)), batch, length, median(measured.ratios),
      human_duration(median(measured.reads)), human_duration(read), human_duration(pack),
      human_duration(compute), human_duration(wait), 100 * hidden / loading,
      100 * hidden / possible, human_bytes(peak), human_bytes(stream->window()), human_bytes(bytes),
      human_bytes(static_cast<std::int64_t>(static_cast<double>(stats.bytes_read) / runs))));
  return {};
}

}  // namespace hone::cli
