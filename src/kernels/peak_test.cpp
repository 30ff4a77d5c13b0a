// The measuring kernels do what they count: the checksums follow from the iterations.
// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "kernels/battery.h"

namespace hone::kernels {
namespace {

TEST(Peak, CountsGrowWithTheIterations) {
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
    const PeakRun once = table->peak_int8(1), often = table->peak_int8(1000);
    EXPECT_GT(once.operations, 0u);
    EXPECT_EQ(often.operations, 1000 * once.operations);
    EXPECT_NE(often.checksum, once.checksum);
    const PeakRun f32 = table->peak_f32(1000);
    EXPECT_GT(f32.operations, 0u);
    EXPECT_TRUE(std::isfinite(f32.checksum) && f32.checksum != 0.0);
    const PeakRun bf16 = table->peak_bf16(1000);
    if (bf16.operations > 0) {
      EXPECT_NE(bf16.checksum, table->peak_bf16(1).checksum);
    }
  }
}

TEST(Peak, ReadBandwidthReadsEveryWord) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t) {
    Guarded<std::uint64_t> words(size, 0);
    std::uint64_t expected = 0;
    for (std::size_t i = 0; i < size; ++i) {
      words[i] = i * 0x9e3779b97f4a7c15u;
      expected += words[i];
    }
    ASSERT_EQ(table.read_bandwidth(std::as_bytes(words.view())), expected);
  });
}

}  // namespace
}  // namespace hone::kernels
