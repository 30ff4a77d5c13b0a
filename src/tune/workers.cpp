// SPDX-License-Identifier: Apache-2.0
#include "tune/workers.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>

#include "base/checksum.h"
#include "tune/mpi_plugin.h"

namespace hone::tune {
namespace {

class Alone : public Workers {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Result<std::vector<double>> gather(std::span<const double> mine) override {
    return std::vector<double>(mine.begin(), mine.end());
  }
  Status broadcast(std::span<std::byte>, int) override { return {}; }
  Status barrier() override { return {}; }
};

struct Plugin {
  decltype(&::hone_mpi_interface) interface = nullptr;
  decltype(&::hone_mpi_open) open = nullptr;
  decltype(&::hone_mpi_gather) gather = nullptr;
  decltype(&::hone_mpi_broadcast) broadcast = nullptr;
  decltype(&::hone_mpi_close) close = nullptr;
};

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

Result<Plugin> load_plugin(const std::string& given) {
  namespace fs = std::filesystem;
  std::vector<std::string> paths;
  if (!given.empty()) {
    paths.push_back(given);
  } else {
    std::error_code code;
    const fs::path folder = fs::read_symlink("/proc/self/exe", code).parent_path();
    paths.push_back((folder / "libhone_mpi.so").string());
    paths.push_back((folder.parent_path() / "lib" / "libhone_mpi.so").string());
  }
  void* library = nullptr;
  std::string found;
  for (const std::string& path : paths) {
    if (library != nullptr) break;
    // Global: MPI loads components of its own that look for its symbols.
    library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    const char* error = library == nullptr ? ::dlerror() : nullptr;
    if (error != nullptr && found.empty()) found = error;
  }
  Plugin plugin;
  const bool complete =
      library != nullptr && find(library, "hone_mpi_interface", plugin.interface) &&
      find(library, "hone_mpi_open", plugin.open) &&
      find(library, "hone_mpi_gather", plugin.gather) &&
      find(library, "hone_mpi_broadcast", plugin.broadcast) &&
      find(library, "hone_mpi_close", plugin.close) && plugin.interface() == HONE_MPI_INTERFACE;
  if (complete) return plugin;
  if (library != nullptr) found = "a libhone_mpi.so of another version of hone";
  return Error{ErrorCode::kNotFound,
               "mpirun started this process, but the part of hone that speaks MPI is not there",
               paths.front(),
               found,
               "libhone_mpi.so of this version, beside the program",
               "install libopenmpi-dev and build hone again, or run without mpirun"};
}

enum class Call : std::uint32_t { kHello, kGather, kBroadcast, kBarrier, kEnd };

std::string_view name_of(Call call) {
  switch (call) {
    case Call::kGather: return "gather";
    case Call::kBroadcast: return "broadcast";
    case Call::kBarrier: return "barrier";
    case Call::kEnd: return "end";
    case Call::kHello: break;
  }
  return "start";
}

// What every rank says in front of each call, so that ranks that lost step are told apart instead
// of waiting for each other.
struct Header {
  std::uint64_t number = 0;  // of the call, from 0
  std::uint64_t bytes = 0;
  Call call = Call::kHello;
  std::int32_t process = 0;   // to see whether it lives
  std::uint64_t machine = 0;  // ranks of one machine see each other's processes
};

// Processes of one machine and one namespace of process numbers.
std::uint64_t this_machine() {
  std::array<char, 256> host{};
  (void)::gethostname(host.data(), host.size() - 1);
  std::string text = host.data();
  std::error_code code;
  text += std::filesystem::read_symlink("/proc/self/ns/pid", code).string();
  return checksum64(std::as_bytes(std::span(text)));
}

class Ranks : public Workers {
 public:
  Ranks(Plugin plugin, WorkersOptions options)
      : plugin_(plugin), options_(std::move(options)), machine_(this_machine()) {}
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  ~Ranks() override {
    // The end is announced like a call: whoever still waits for this rank's numbers hears of it.
    if (opened_ && !failed_ && announce(Call::kEnd, 0, true).ok()) plugin_.close();
  }

  Status start();
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Result<std::vector<double>> gather(std::span<const double> mine) override;
  Status broadcast(std::span<std::byte> bytes, int root) override;
  Status barrier() override { return announce(Call::kBarrier, 0, true); }

 private:
  // The headers of all ranks are in headers_ then, and agree.
  Status announce(Call call, std::size_t bytes, bool same_size);
  Status judge(int outcome, Call call);
  Status fail(Error error);
  bool keep_waiting();
  static int poll(void* self) { return static_cast<Ranks*>(self)->keep_waiting() ? 0 : 1; }
  void begin_wait() { began_ = std::chrono::steady_clock::now(); }

  Plugin plugin_;
  WorkersOptions options_;
  std::uint64_t machine_;
  bool opened_ = false;
  int rank_ = 0;
  int size_ = 1;
  std::uint64_t calls_ = 0;
  std::vector<Header> headers_;
  std::vector<Header> hello_;  // of the start: processes and machines
  std::array<char, 512> text_{};
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point looked_;
  std::string reason_;  // why a wait ended, and what to try
  std::string advice_;
  std::optional<Error> failed_;
};

Status Ranks::start() {
  opened_ = plugin_.open(&rank_, &size_, text_.data(), static_cast<int>(text_.size())) == 0;
  if (!opened_) {
    return fail(
        {ErrorCode::kIo, "MPI does not start", "", text_.data(), "", "see mpirun's output"});
  }
  headers_.resize(static_cast<std::size_t>(size_));
  HONE_RETURN_IF_ERROR(announce(Call::kHello, 0, true));
  hello_ = headers_;
  return {};
}

Status Ranks::fail(Error error) {
  if (!failed_) failed_ = std::move(error).in(fmt::format("rank {} of {}", rank_, size_));
  return *failed_;
}

bool Ranks::keep_waiting() {
  const auto now = std::chrono::steady_clock::now();
  // A dead one is looked for before an interrupt is: mpirun sends the others a signal.
  if (now - looked_ > std::chrono::milliseconds(20)) {
    looked_ = now;
    for (std::size_t i = 0; i < hello_.size(); ++i) {
      const bool gone =
          hello_[i].machine == machine_ && ::kill(hello_[i].process, 0) != 0 && errno == ESRCH;
      if (!gone) continue;
      reason_ = fmt::format("rank {} (process {}) ended", i, hello_[i].process);
      advice_ = "see what it said before; resume from the last checkpoint";
      return false;
    }
  }
  if (options_.stopped && options_.stopped()) {
    reason_ = "interrupted while waiting for the other ranks";
    advice_ = "resume from the last checkpoint";
    return false;
  }
  if (std::chrono::duration<double>(now - began_).count() > options_.timeout_seconds) {
    reason_ = fmt::format("the other ranks did not come within {:.0f} s", options_.timeout_seconds);
    advice_ = "a rank is dead, stuck or much slower; resume from the last checkpoint";
    return false;
  }
  return true;
}

Status Ranks::judge(int outcome, Call call) {
  if (outcome == HONE_MPI_OK) return {};
  const std::string where = fmt::format("{} {}", name_of(call), calls_ - 1);
  if (outcome == HONE_MPI_STOPPED) {
    return fail({ErrorCode::kIo, "this rank stops: the ranks cannot go on together", where, reason_,
                 fmt::format("all {} ranks", size_), advice_});
  }
  return fail({ErrorCode::kIo, "MPI reports an error: the ranks cannot go on together", where,
               text_.data(), "", "see mpirun's output; resume from the last checkpoint"});
}

Status Ranks::announce(Call call, std::size_t bytes, bool same_size) {
  if (failed_) return *failed_;
  const Header mine{calls_++, bytes, call, static_cast<std::int32_t>(::getpid()), machine_};
  const std::vector<int> counts(static_cast<std::size_t>(size_), sizeof(Header));
  begin_wait();
  HONE_RETURN_IF_ERROR(judge(plugin_.gather(&mine, counts.data(), headers_.data(), poll, this,
                                            text_.data(), static_cast<int>(text_.size())),
                             call));
  for (std::size_t i = 0; i < headers_.size(); ++i) {
    const Header& other = headers_[i];
    if (other.number == mine.number && other.call == call &&
        (!same_size || other.bytes == mine.bytes)) {
      continue;
    }
    if (other.call == Call::kEnd) {
      return fail({ErrorCode::kIo, fmt::format("rank {} stopped before the others", i),
                   fmt::format("{} {}", name_of(call), mine.number), "", "",
                   "see what it said; resume from the last checkpoint"});
    }
    const auto text = [](const Header& header) {
      return fmt::format("{} {} of {} bytes", name_of(header.call), header.number, header.bytes);
    };
    return fail({ErrorCode::kInvalidArgument, "the ranks are not doing the same", "",
                 fmt::format("rank {}: {}", i, text(other)), text(mine),
                 "start all ranks with the same arguments and the same version of hone"});
  }
  return {};
}

Result<std::vector<double>> Ranks::gather(std::span<const double> mine) {
  HONE_RETURN_IF_ERROR(announce(Call::kGather, mine.size_bytes(), false));
  std::vector<int> counts;
  std::uint64_t total = 0;
  for (const Header& header : headers_) {
    total += header.bytes;
    counts.push_back(static_cast<int>(std::min<std::uint64_t>(header.bytes, INT32_MAX)));
  }
  if (total > std::numeric_limits<std::int32_t>::max()) {
    return fail({ErrorCode::kOutOfRange, "too much to gather at once", "",
                 fmt::format("{} bytes", total), "less than 2 GB", ""})
        .error();
  }
  std::vector<double> all(total / sizeof(double));
  begin_wait();
  HONE_RETURN_IF_ERROR(judge(plugin_.gather(mine.data(), counts.data(), all.data(), poll, this,
                                            text_.data(), static_cast<int>(text_.size())),
                             Call::kGather));
  return all;
}

Status Ranks::broadcast(std::span<std::byte> bytes, int root) {
  HONE_RETURN_IF_ERROR(announce(Call::kBroadcast, bytes.size(), true));
  constexpr std::size_t kPart = std::size_t{1} << 30;  // MPI counts in int
  while (!bytes.empty()) {
    const std::size_t part = std::min(bytes.size(), kPart);
    begin_wait();
    HONE_RETURN_IF_ERROR(
        judge(plugin_.broadcast(bytes.data(), static_cast<int>(part), root, poll, this,
                                text_.data(), static_cast<int>(text_.size())),
              Call::kBroadcast));
    bytes = bytes.subspan(part);
  }
  return {};
}

bool started_by_mpirun() {
  const char* size = std::getenv("OMPI_COMM_WORLD_SIZE");  // NOLINT(concurrency-mt-unsafe)
  if (size != nullptr) return std::string_view(size) != "1";
  return std::getenv("PMIX_RANK") != nullptr;  // NOLINT(concurrency-mt-unsafe)
}

}  // namespace

std::unique_ptr<Workers> alone() { return std::make_unique<Alone>(); }

Result<std::unique_ptr<Workers>> join_workers(const WorkersOptions& options) {
  if (!started_by_mpirun()) return alone();
  auto plugin = load_plugin(options.plugin);
  if (!plugin) return plugin.error();
  auto ranks = std::make_unique<Ranks>(*plugin, options);
  HONE_RETURN_IF_ERROR(ranks->start());
  return std::unique_ptr<Workers>(std::move(ranks));
}

Status check_same(Workers& workers, const std::string& what, std::uint64_t digest) {
  const double mine = std::bit_cast<double>(digest);  // carried as bits, never computed with
  const auto all = workers.gather(std::span(&mine, 1));
  if (!all) return all.error();
  for (std::size_t i = 0; i < all->size(); ++i) {
    const auto other = std::bit_cast<std::uint64_t>((*all)[i]);
    const auto first = std::bit_cast<std::uint64_t>((*all)[0]);
    if (other == first) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the ranks have diverged: {} differ", what),
                 fmt::format("rank {} of {}", workers.rank(), workers.size()),
                 fmt::format("digest {:016x} on rank {}", other, i),
                 fmt::format("{:016x}, as on rank 0", first),
                 "start all ranks with the same arguments, model, data and version of hone, on "
                 "machines with the same instruction set"};
  }
  return {};
}

}  // namespace hone::tune
