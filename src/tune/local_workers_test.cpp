// Threads as workers: rank order, broadcast, and no rank that waits for one that is gone.
// SPDX-License-Identifier: Apache-2.0
#include "tune/local_workers.h"

#include <gtest/gtest.h>

namespace hone::tune {
namespace {

TEST(LocalWorkersTest, GatherInRankOrder) {
  const Status status = run_together(4, [](Workers& workers) -> Status {
    for (int step = 0; step < 200; ++step) {
      std::vector<double> mine;
      const Range share = share_of(6, workers);
      for (std::int64_t i = share.begin; i < share.end; ++i) {
        mine.push_back(static_cast<double>(10 * step + i));
      }
      const auto all = workers.gather(mine);
      if (!all) return all.error();
      std::vector<double> expected;
      for (int i = 0; i < 6; ++i) expected.push_back(10 * step + i);
      EXPECT_EQ(*all, expected);
      std::int32_t sent = workers.rank() == step % 4 ? step : -1;
      HONE_RETURN_IF_ERROR(
          workers.broadcast(std::as_writable_bytes(std::span(&sent, 1)), step % 4));
      EXPECT_EQ(sent, step);
      HONE_RETURN_IF_ERROR(workers.barrier());
    }
    return check_same(workers, "nothing", 3);
  });
  EXPECT_TRUE(status.ok());
}

TEST(LocalWorkersTest, ARankThatStopsIsNotWaitedFor) {
  const Status status = run_together(3, [](Workers& workers) -> Status {
    for (int step = 0; step < 10; ++step) {
      if (step == 5 && workers.rank() == 2) {
        return Error{ErrorCode::kNotFound, "no more", "", "", "", ""};
      }
      const double mine = step;
      const auto all = workers.gather(std::span(&mine, 1));
      if (!all) return all.error();
    }
    ADD_FAILURE() << "went on";
    return {};
  });
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().text().find("rank 2 stopped before the others"), std::string::npos);
}

}  // namespace
}  // namespace hone::tune
