// SPDX-License-Identifier: Apache-2.0
#include "tune/local_workers.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace hone::tune {
namespace {

// Where the ranks meet. A round is over when all have brought their bytes and all have taken what
// they came for.
class Meeting {
 public:
  explicit Meeting(int size) : size_(size), brought_(static_cast<std::size_t>(size)) {}
  int size() const { return size_; }

  // Every rank's bytes, in rank order.
  Result<std::vector<std::vector<std::byte>>> meet(int rank, std::span<const std::byte> mine) {
    std::unique_lock lock(mutex_);
    // Those of the round before may still be taking.
    turn_.wait(lock, [&] { return taking_ == 0 || left_ >= 0; });
    if (left_ >= 0) return gone();
    brought_[static_cast<std::size_t>(rank)].assign(mine.begin(), mine.end());
    if (++arrived_ == size_) {
      arrived_ = 0;
      taking_ = size_;
      ++round_;
      turn_.notify_all();
    } else {
      const std::uint64_t before = round_;
      turn_.wait(lock, [&] { return round_ != before || left_ >= 0; });
      if (round_ == before) return gone();
    }
    auto all = brought_;
    if (--taking_ == 0) turn_.notify_all();
    return all;
  }

  void leave(int rank) {
    {
      const std::lock_guard lock(mutex_);
      if (left_ < 0) left_ = rank;
    }
    turn_.notify_all();
  }

 private:
  Error gone() const {
    return Error{ErrorCode::kIo,
                 fmt::format("rank {} stopped before the others", left_),
                 "",
                 "",
                 fmt::format("all {} ranks", size_),
                 "see what it said"};
  }

  int size_;
  std::mutex mutex_;
  std::condition_variable turn_;
  std::vector<std::vector<std::byte>> brought_;
  int arrived_ = 0;
  int taking_ = 0;
  std::uint64_t round_ = 0;
  int left_ = -1;
};

class Local : public Workers {
 public:
  Local(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return meeting_.size(); }

  Result<std::vector<double>> gather(std::span<const double> mine) override {
    const auto all = meeting_.meet(rank_, std::as_bytes(mine));
    if (!all) return all.error();
    std::vector<double> out;
    for (const std::vector<std::byte>& each : *all) {
      const auto* values = reinterpret_cast<const double*>(each.data());
      out.insert(out.end(), values, values + each.size() / sizeof(double));
    }
    return out;
  }
  Status broadcast(std::span<std::byte> bytes, int root) override {
    const auto all = meeting_.meet(rank_, rank_ == root ? bytes : std::span<std::byte>());
    if (!all) return all.error();
    const std::vector<std::byte>& sent = (*all)[static_cast<std::size_t>(root)];
    std::copy_n(sent.begin(), std::min(sent.size(), bytes.size()), bytes.begin());
    return {};
  }
  Status barrier() override {
    const auto all = meeting_.meet(rank_, {});
    return all.ok() ? Status() : Status(all.error());
  }

 private:
  Meeting& meeting_;
  int rank_;
};

}  // namespace

Status run_together(int size, const std::function<Status(Workers& workers)>& body) {
  Meeting meeting(size);
  std::vector<Status> outcomes(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      Local workers(meeting, rank);
      Status status = body(workers);
      if (!status.ok()) meeting.leave(rank);
      outcomes[static_cast<std::size_t>(rank)] = std::move(status);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Status& outcome : outcomes) {
    if (!outcome.ok()) return outcome;
  }
  return {};
}

}  // namespace hone::tune
