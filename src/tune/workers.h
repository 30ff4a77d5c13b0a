// Many processes that tune one model together: who this one is, and the few numbers that cross the
// wire in a step. Every call is collective: all ranks make it, in the same order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads.h"

namespace hone::tune {

// After an error of a call every later call gives the same error: the others may be gone. A rank
// that stops for a reason of its own lets the object go; the others get an error then.
class Workers {
 public:
  virtual ~Workers() = default;

  virtual int rank() const = 0;  // in [0, size)
  virtual int size() const = 0;

  // What every rank brought, rank after rank: the same bits on all ranks. The ranks may bring
  // different counts, as those of share_of.
  virtual Result<std::vector<double>> gather(std::span<const double> mine) = 0;
  // The root's bytes reach all. The same size on all ranks.
  virtual Status broadcast(std::span<std::byte> bytes, int root) = 0;
  // Returns when all have arrived.
  virtual Status barrier() = 0;
};

struct WorkersOptions {
  // How long a rank waits for the slowest. A rank that died on this machine is noticed at once
  // whatever this says.
  double timeout_seconds = 600;
  // Asked while waiting: an interrupt ends the wait with an error.
  std::function<bool()> stopped;
  std::string plugin;  // libhone_mpi.so; empty: beside the program, or in ../lib of it
};

// A run of one process: what it gathers is its own.
std::unique_ptr<Workers> alone();

// The ranks that mpirun started, or alone() where it did not start this process. The library of MPI
// is loaded only in the former case. kNotFound where hone was built without it.
Result<std::unique_ptr<Workers>> join_workers(const WorkersOptions& options = {});

// This rank's part of `count` directions or examples; parts of all ranks in rank order are the
// whole.
inline Range share_of(std::int64_t count, const Workers& workers) {
  return hone::share_of(count, workers.rank(), workers.size());
}

// An error on all ranks unless `digest` is the same on all: call it for the settings and the data
// at the start, and now and then for what is trained. `what` names it: "the settings".
Status check_same(Workers& workers, const std::string& what, std::uint64_t digest);

}  // namespace hone::tune
