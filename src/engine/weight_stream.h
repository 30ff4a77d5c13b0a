// Weights streamed from their file: while steps compute, the weights of the next ones are read and
// packed into a window of memory, in the order in which the program needs them, and dropped after
// (docs/streaming.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/descriptor.h"
#include "base/status.h"
#include "kernels/packed.h"
#include "runtime/program.h"
#include "runtime/residency.h"

namespace hone::engine {

// Where a matrix lies, row-major, as its dtype has it; or packed already.
struct StreamedTensor {
  std::string name;
  std::string path;
  std::int64_t offset = 0;  // from the start of the file
  kernels::PackedLayout layout;
  bool is_packed = false;
};

// Of all runs since the last reset.
struct StreamStats {
  std::int64_t runs = 0;
  std::int64_t bytes_read = 0;
  double run_seconds = 0;   // from begin to end
  double read_seconds = 0;  // of the thread that reads
  double pack_seconds = 0;  // of the thread that packs
  double wait_seconds = 0;  // of the first computing thread, for weights
};

namespace stream_detail {

// One weight brought once, for the steps [first, last].
struct Load {
  runtime::Weight* weight = nullptr;
  const StreamedTensor* tensor = nullptr;
  std::size_t first = 0;
  std::size_t last = 0;
  std::int64_t bytes = 0;   // in the window; 0: only some panels, in memory of their own
  std::int64_t offset = 0;  // in the window
  std::size_t after = 0;    // how many loads, from the first, must have gone before this may come
  std::vector<std::int64_t> panels;  // where only some are read: sorted, each once
};

// A run's loads in order, and what each step waits for and frees. Counts, because loads come and go
// in order.
struct Plan {
  std::vector<Load> loads;
  std::vector<std::size_t> needed;  // one a step: loads that must have come
  std::vector<std::size_t> free;    // one a step: loads that go when it is done
};

// Gives each load its place in a window of that size. The same places whatever the timing: a load
// lies behind the one before, or at the window's start. kOutOfMemory where a step could not get all
// that it reads.
Status place(Plan& plan, const runtime::Program& program, std::int64_t window);

// Bytes of a window in which a placed plan surely runs.
std::int64_t enough_window(const Plan& plan);

// A part of a load: panels next to each other.
struct Chunk {
  std::size_t load = 0;
  std::int64_t first_panel = 0;
  std::int64_t panels = 0;
  bool last = false;  // of its load
};

}  // namespace stream_detail

class WeightStream : public runtime::Residency {
 public:
  // `window`: bytes for weights. Beside it, a few MB for what is read and not packed yet.
  explicit WeightStream(std::int64_t window);
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;
  ~WeightStream() override;

  // From here on the weight is brought for the steps that read it. It outlives the stream.
  void add(runtime::Weight& weight, StreamedTensor tensor);

  Status begin(const runtime::Program& program, const runtime::Bindings& bindings) override;
  bool wait(std::size_t step, int thread) override;
  void done(std::size_t step) override;
  Status end() override;

  std::int64_t window() const { return window_; }
  StreamStats stats() const;
  void reset_stats();

 private:
  struct Mapping {
    std::byte* data = nullptr;
    std::size_t size = 0;
    Mapping() = default;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping();
    bool make(std::size_t bytes);
  };
  struct Known {
    runtime::Weight* weight = nullptr;
    StreamedTensor tensor;
    Mapping sparse;  // for loads of some panels
  };
  struct Slot {
    std::vector<std::byte> memory;
    std::span<std::byte> bytes;  // of it; of what is packed already, its place in the window
  };

  Status make_plan(const runtime::Program& program, const runtime::Bindings& bindings);
  bool some_panels(stream_detail::Load& load, std::span<const std::byte> rows) const;
  void make_chunks();
  Status open_files();
  void read_loop();
  void pack_loop();
  Status read(const stream_detail::Chunk& chunk, Slot& slot) const;
  bool has_room(std::size_t chunk) const;
  void pack(const stream_detail::Chunk& chunk, std::span<const std::byte> from) const;
  std::byte* memory_of(const stream_detail::Load& load) const;

  std::int64_t window_;
  Mapping memory_;
  std::map<const runtime::Weight*, std::unique_ptr<Known>> known_;
  std::map<std::string, Descriptor, std::less<>> files_;

  // Written by begin() and end() while both threads rest.
  stream_detail::Plan plan_;
  std::vector<stream_detail::Chunk> chunks_;
  std::vector<Slot> slots_;

  mutable std::mutex mutex_;
  std::condition_variable read_turn_;     // the reading thread waits
  std::condition_variable pack_turn_;     // the packing thread waits
  std::condition_variable compute_turn_;  // the computing threads wait, and end()
  // Behind the mutex. Counts only grow during a run.
  bool stop_ = false;
  bool running_ = false;
  bool reading_ = false;
  bool packing_ = false;
  std::size_t read_ = 0;      // chunks
  std::size_t packed_ = 0;    // chunks
  std::size_t loaded_ = 0;    // loads
  std::size_t released_ = 0;  // loads
  Status failed_;             // nothing is loaded any more then
  StreamStats stats_;
  double began_ = 0;

  std::thread reader_;
  std::thread packer_;
};

}  // namespace hone::engine
