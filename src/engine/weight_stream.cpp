// SPDX-License-Identifier: Apache-2.0
#include "engine/weight_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/human.h"
#include "base/timing.h"
#include "engine/packed_file.h"
#include "runtime/execute.h"

namespace hone::engine {
namespace {

using stream_detail::Chunk;
using stream_detail::Load;
using stream_detail::Plan;

// Bytes of the file that are read at once, and how many such parts wait to be packed: enough that a
// disk is busy while a part is packed, little beside any window.
constexpr std::int64_t kChunkBytes = 1 << 20;
constexpr std::size_t kSlots = 4;
// A weight that is read again soon stays: within this part of the window.
constexpr std::int64_t kKeepPart = 4;
constexpr std::int64_t kAlignment = 64;

std::int64_t rounded(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::int64_t row_bytes(const kernels::PackedLayout& layout) {
  return dtype_bytes(layout.dtype, layout.columns);
}

// The load that this step can use, too: of the same weight, and not long ago; or still held, since
// no barrier came after `held`, the first step that some thread may be in.
Load* recent(Plan& plan, const runtime::Weight* weight, std::int64_t within, std::size_t held) {
  std::int64_t since = 0;
  for (std::size_t i = plan.loads.size(); i-- > 0;) {
    Load& load = plan.loads[i];
    since += load.bytes;
    if (load.weight == weight && load.panels.empty()) {
      return since <= within || load.last >= held ? &load : nullptr;
    }
  }
  return nullptr;
}

}  // namespace

namespace stream_detail {

Status place(Plan& plan, const runtime::Program& program, std::int64_t window) {
  const std::size_t steps = program.steps.size();
  plan.needed.assign(steps, 0);
  plan.free.assign(steps, 0);
  for (std::size_t i = 0; i < plan.loads.size(); ++i) {
    std::size_t& needed = plan.needed[plan.loads[i].first];
    needed = std::max(needed, i + 1);
  }
  for (std::size_t step = 0, gone = 0; step < steps; ++step) {
    while (gone < plan.loads.size() && plan.loads[gone].last <= step) ++gone;
    // Without a barrier behind it, some threads may still be in the step.
    plan.free[step] = program.steps[step].barrier ? gone : step == 0 ? 0 : plan.free[step - 1];
  }
  std::int64_t head = 0;
  for (std::size_t i = 0; i < plan.loads.size(); ++i) {
    Load& load = plan.loads[i];
    if (head + load.bytes > window) head = 0;
    load.offset = head;
    load.after = 0;
    head += load.bytes;
    for (std::size_t j = i; j-- > 0;) {
      const Load& other = plan.loads[j];
      const bool shares = other.bytes > 0 && load.bytes > 0 &&
                          other.offset < load.offset + load.bytes &&
                          load.offset < other.offset + other.bytes;
      if (!shares && other.weight != load.weight) continue;
      load.after = j + 1;
      break;
    }
  }
  // Each step must get what it reads from what went before it.
  bool fits = true;
  for (std::size_t step = 0; step < steps; ++step) {
    const std::size_t gone = step == 0 ? 0 : plan.free[step - 1];
    for (std::size_t i = gone; i < plan.needed[step]; ++i) {
      fits = fits && plan.loads[i].after <= gone && plan.loads[i].bytes <= window;
    }
  }
  if (fits) return {};
  return Error{ErrorCode::kOutOfMemory,
               "the window for streamed weights is too small for this model",
               "",
               human_bytes(window),
               fmt::format("at least {}", human_bytes(enough_window(plan))),
               "raise --stream"};
}

// What is held at once, and what may stay free at the window's end.
std::int64_t enough_window(const Plan& plan) {
  std::int64_t most = 0;
  std::int64_t largest = 0;
  for (const Load& load : plan.loads) largest = std::max(largest, load.bytes);
  for (std::size_t step = 0; step < plan.needed.size(); ++step) {
    std::int64_t held = 0;
    for (std::size_t i = step == 0 ? 0 : plan.free[step - 1]; i < plan.needed[step]; ++i) {
      held += plan.loads[i].bytes;
    }
    most = std::max(most, held);
  }
  return most + largest;
}

}  // namespace stream_detail

WeightStream::Mapping::~Mapping() {
  if (data != nullptr) ::munmap(data, size);
}

bool WeightStream::Mapping::make(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return false;
  data = static_cast<std::byte*>(memory);
  size = bytes;
  return true;
}

WeightStream::WeightStream(std::int64_t window) : window_(window / kAlignment * kAlignment) {
  slots_.resize(kSlots);
  reader_ = std::thread(&WeightStream::read_loop, this);
  packer_ = std::thread(&WeightStream::pack_loop, this);
}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  read_turn_.notify_all();
  pack_turn_.notify_all();
  reader_.join();
  packer_.join();
}

void WeightStream::add(runtime::Weight& weight, StreamedTensor tensor) {
  auto known = std::make_unique<Known>();
  known->weight = &weight;
  known->tensor = std::move(tensor);
  weight.residency = this;
  known_[&weight] = std::move(known);
}

// Rows that the input names: their panels alone, where that is little. An embedding, for example.
bool WeightStream::some_panels(Load& load, std::span<const std::byte> rows) const {
  const kernels::PackedLayout& layout = load.tensor->layout;
  for (std::size_t i = 0; i + sizeof(std::int32_t) <= rows.size(); i += sizeof(std::int32_t)) {
    std::int32_t row = 0;
    std::memcpy(&row, rows.data() + i, sizeof(row));
    const auto index = std::clamp<std::int64_t>(row, 0, layout.rows - 1);  // as the step takes it
    load.panels.push_back(index / kernels::kPanelRows);
  }
  std::ranges::sort(load.panels);
  load.panels.erase(std::ranges::unique(load.panels).begin(), load.panels.end());
  const auto count = static_cast<std::int64_t>(load.panels.size());
  const bool little = count * 2 <= layout.panels() && count * layout.panel_bytes <= window_ / 4;
  const bool only_way = layout.total_bytes > window_;
  if (count > 0 && (little || only_way)) {
    load.bytes = 0;
    return true;
  }
  load.panels.clear();
  return false;
}

Status WeightStream::make_plan(const runtime::Program& program, const runtime::Bindings& bindings) {
  plan_ = {};
  std::size_t held = 0;
  for (std::size_t step = 0; step < program.steps.size(); ++step) {
    for (const runtime::WeightUse& use : program.steps[step].weights) {
      const auto found = known_.find(bindings.weights[static_cast<std::size_t>(use.parameter)]);
      if (found == known_.end()) continue;
      Known& known = *found->second;
      if (Load* load = recent(plan_, known.weight, window_ / kKeepPart, held); load != nullptr) {
        load->last = step;
        continue;
      }
      Load load{known.weight,
                &known.tensor,
                step,
                step,
                rounded(known.tensor.layout.total_bytes),
                0,
                0,
                {}};
      if (use.rows_input >= 0 &&
          some_panels(load, bindings.inputs[static_cast<std::size_t>(use.rows_input)]) &&
          known.sparse.data == nullptr &&
          !known.sparse.make(static_cast<std::size_t>(known.tensor.layout.total_bytes))) {
        return Error{ErrorCode::kOutOfMemory,
                     "no address space for a streamed weight",
                     known.tensor.name,
                     "",
                     "",
                     "raise the limit of virtual memory"};
      }
      plan_.loads.push_back(std::move(load));
    }
    if (program.steps[step].barrier) held = step + 1;
  }
  return stream_detail::place(plan_, program, window_);
}

void WeightStream::make_chunks() {
  chunks_.clear();
  for (std::size_t i = 0; i < plan_.loads.size(); ++i) {
    const Load& load = plan_.loads[i];
    const kernels::PackedLayout& layout = load.tensor->layout;
    const std::int64_t panel =
        load.tensor->is_packed ? layout.panel_bytes : row_bytes(layout) * kernels::kPanelRows;
    const std::int64_t most = std::max<std::int64_t>(1, kChunkBytes / panel);
    if (load.panels.empty()) {
      for (std::int64_t first = 0; first < layout.panels(); first += most) {
        chunks_.push_back({i, first, std::min(most, layout.panels() - first), false});
      }
    } else {
      for (const std::int64_t each : load.panels) {
        const bool follows = !chunks_.empty() && chunks_.back().load == i &&
                             chunks_.back().first_panel + chunks_.back().panels == each &&
                             chunks_.back().panels < most;
        if (follows) ++chunks_.back().panels;
        if (!follows) chunks_.push_back({i, each, 1, false});
      }
    }
    chunks_.back().last = true;
  }
}

Status WeightStream::open_files() {
  for (const Load& load : plan_.loads) {
    const std::string& path = load.tensor->path;
    if (files_.contains(path)) continue;
    Descriptor opened{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!opened.is_open()) {
      return Error{ErrorCode::kIo,
                   "cannot open the model's file to stream it",
                   path,
                   std::strerror(errno),  // NOLINT(concurrency-mt-unsafe) glibc's is thread safe
                   "",
                   "is it still there?"};
    }
    files_.emplace(path, std::move(opened));
  }
  return {};
}

Status WeightStream::begin(const runtime::Program& program, const runtime::Bindings& bindings) {
  // Both threads rest between runs: nothing here is shared until running_ is set.
  if (memory_.data == nullptr) {
    if (!memory_.make(static_cast<std::size_t>(window_))) {
      return Error{ErrorCode::kOutOfMemory,
                   "no memory for the window of streamed weights",
                   "",
                   human_bytes(window_),
                   "",
                   "lower --stream"};
    }
    ::madvise(memory_.data, memory_.size, MADV_HUGEPAGE);
  }
  HONE_RETURN_IF_ERROR(make_plan(program, bindings));
  HONE_RETURN_IF_ERROR(open_files());
  make_chunks();
  {
    const std::lock_guard lock(mutex_);
    running_ = true;
    read_ = packed_ = loaded_ = released_ = 0;
    failed_ = {};
    began_ = seconds_now();
  }
  read_turn_.notify_one();
  return {};
}

bool WeightStream::wait(std::size_t step, int thread) {
  const std::size_t needed = plan_.needed[step];
  if (needed == 0) return true;
  std::unique_lock lock(mutex_);
  if (loaded_ >= needed) return true;
  const double before = seconds_now();
  // What is loaded stays so, and after a failure nothing more comes: one answer for all threads.
  compute_turn_.wait(lock, [&] { return loaded_ >= needed || !failed_.ok(); });
  if (thread == 0) stats_.wait_seconds += seconds_now() - before;
  return loaded_ >= needed;
}

void WeightStream::done(std::size_t step) {
  const std::size_t free = plan_.free[step];
  {
    const std::lock_guard lock(mutex_);
    if (free <= released_) return;
    released_ = free;
  }
  pack_turn_.notify_one();
  read_turn_.notify_one();
}

Status WeightStream::end() {
  Status status;
  {
    std::unique_lock lock(mutex_);
    running_ = false;
    compute_turn_.wait(lock, [&] { return !reading_ && !packing_; });
    status = failed_;
    ++stats_.runs;
    stats_.run_seconds += seconds_now() - began_;
  }
  for (const Load& load : plan_.loads) {
    load.weight->bytes = {};
    if (load.panels.empty()) continue;
    const Mapping& sparse = known_.at(load.weight)->sparse;
    ::madvise(sparse.data, sparse.size, MADV_DONTNEED);
  }
  return status;
}

StreamStats WeightStream::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void WeightStream::reset_stats() {
  const std::lock_guard lock(mutex_);
  stats_ = {};
}

Status WeightStream::read(const Chunk& chunk, Slot& slot) const {
  const Load& load = plan_.loads[chunk.load];
  const StreamedTensor& tensor = *load.tensor;
  const std::int64_t bytes_of_row = row_bytes(tensor.layout);
  const std::int64_t first = chunk.first_panel * kernels::kPanelRows;
  const std::int64_t rows =
      std::min(chunk.panels * kernels::kPanelRows, tensor.layout.rows - first);
  const int file = files_.find(tensor.path)->second.number;
  std::int64_t start = tensor.offset + first * bytes_of_row;
  if (tensor.is_packed) {
    const std::int64_t at = chunk.first_panel * tensor.layout.panel_bytes;
    start = tensor.offset + at;
    slot.bytes = {memory_of(load) + at,
                  static_cast<std::size_t>(chunk.panels * tensor.layout.panel_bytes)};
  } else {
    slot.memory.resize(static_cast<std::size_t>(rows * bytes_of_row));
    slot.bytes = slot.memory;
  }
  const std::span<std::byte> to = slot.bytes;
  for (std::size_t done = 0; done < to.size();) {
    const ssize_t count =
        ::pread(file, to.data() + done, to.size() - done, start + static_cast<std::int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return Error{ErrorCode::kIo,
                   fmt::format("cannot read the weight '{}' while streaming", tensor.name),
                   fmt::format("{}, byte {}", tensor.path, start + static_cast<std::int64_t>(done)),
                   count == 0 ? "the end of the file"
                              : std::strerror(
                                    errno),  // NOLINT(concurrency-mt-unsafe) glibc's is thread safe
                   fmt::format("{} bytes", to.size()),
                   "was the file changed, or is the disk gone?"};
    }
    done += static_cast<std::size_t>(count);
  }
  // The page cache keeps none of it: the window is all the memory that weights take. From the page
  // that the chunk before ended in.
  const std::int64_t page = ::sysconf(_SC_PAGESIZE);
  const std::int64_t from = start / page * page;
  ::posix_fadvise(file, from, start + static_cast<std::int64_t>(to.size()) - from,
                  POSIX_FADV_DONTNEED);
  return {};
}

std::byte* WeightStream::memory_of(const Load& load) const {
  return load.panels.empty() ? memory_.data + load.offset : known_.at(load.weight)->sparse.data;
}

void WeightStream::pack(const Chunk& chunk, std::span<const std::byte> from) const {
  const Load& load = plan_.loads[chunk.load];
  if (load.tensor->is_packed) return;
  const kernels::PackedLayout& layout = load.tensor->layout;
  pack_rows(layout, from,
            {memory_of(load) + chunk.first_panel * layout.panel_bytes,
             static_cast<std::size_t>(chunk.panels * layout.panel_bytes)});
}

// What its load will lie over has gone.
bool WeightStream::has_room(std::size_t chunk) const {
  return plan_.loads[chunks_[chunk].load].after <= released_;
}

void WeightStream::read_loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    read_turn_.wait(lock, [&] {
      return stop_ ||
             (running_ && failed_.ok() && read_ < chunks_.size() && read_ - packed_ < kSlots &&
              (!plan_.loads[chunks_[read_].load].tensor->is_packed || has_room(read_)));
    });
    if (stop_) return;
    reading_ = true;
    const std::size_t index = read_;
    lock.unlock();
    const double before = seconds_now();
    Slot& slot = slots_[index % kSlots];
    const Status status = read(chunks_[index], slot);
    const double seconds = seconds_now() - before;
    lock.lock();
    reading_ = false;
    stats_.read_seconds += seconds;
    stats_.bytes_read += static_cast<std::int64_t>(slot.bytes.size());
    if (status.ok()) ++read_;
    if (!status.ok()) failed_ = status;
    pack_turn_.notify_one();
    if (!status.ok() || !running_) compute_turn_.notify_all();
  }
}

void WeightStream::pack_loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    pack_turn_.wait(lock, [&] {
      return stop_ || (running_ && failed_.ok() && packed_ < read_ && has_room(packed_));
    });
    if (stop_) return;
    packing_ = true;
    const Chunk chunk = chunks_[packed_];
    const Slot& slot = slots_[packed_ % kSlots];
    lock.unlock();
    const double before = seconds_now();
    pack(chunk, slot.bytes);
    const double seconds = seconds_now() - before;
    lock.lock();
    packing_ = false;
    stats_.pack_seconds += seconds;
    ++packed_;
    // The packed bytes of a load that fails later are never shown.
    if (chunk.last && failed_.ok()) {
      const Load& load = plan_.loads[chunk.load];
      load.weight->bytes = {memory_of(load),
                            static_cast<std::size_t>(load.tensor->layout.total_bytes)};
      ++loaded_;
      compute_turn_.notify_all();
    }
    read_turn_.notify_one();
    if (!running_) compute_turn_.notify_all();
  }
}

}  // namespace hone::engine
