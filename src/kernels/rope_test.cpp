// Rotary embedding against complex multiplication in double, both pairings, whole and partial.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/battery.h"

namespace hone::kernels {
namespace {

TEST(Rope, MatchesDouble) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    for (const bool interleaved : {false, true}) {
      for (const std::size_t pairs : {size / 2, size / 4}) {
        const Row before = random_row(size, -2.0f, 2.0f, 10, misaligned);
        Row head = random_row(size, -2.0f, 2.0f, 10, misaligned);
        const Row angles = random_row(pairs, -3.0f, 3.0f, 11, 1);
        Row cosines(pairs, misaligned), sines(pairs, 2);
        for (std::size_t i = 0; i < pairs; ++i) {
          cosines[i] = std::cos(angles[i]);
          sines[i] = std::sin(angles[i]);
        }
        table.rope(head, cosines, sines, interleaved);
        for (std::size_t i = 0; i < pairs; ++i) {
          const std::size_t first = interleaved ? 2 * i : i;
          const std::size_t second = interleaved ? 2 * i + 1 : i + pairs;
          const double a = before[first], b = before[second];
          const double c = cosines[i], s = sines[i];
          // Two products and a sum, each rounded once, of magnitudes up to |a| + |b|.
          const double absolute = kEpsilon * (std::abs(a) + std::abs(b));
          expect_close(head[first], a * c - b * s, 0.0, absolute, first);
          expect_close(head[second], b * c + a * s, 0.0, absolute, second);
        }
        for (std::size_t i = 2 * pairs; i < size; ++i) ASSERT_EQ(head[i], before[i]);
        ASSERT_TRUE(head.intact());
      }
    }
  });
}

}  // namespace
}  // namespace hone::kernels
