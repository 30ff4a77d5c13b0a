// What every kernel test shares: awkward sizes, misaligned buffers with guard words, random rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/registry.h"

namespace hone::kernels {

// Around the vector widths and block sizes, real widths of models, and primes.
inline constexpr std::array<std::size_t, 17> kSizes = {0,  1,  2,   15,  16,  17,  31,   32,  33,
                                                       63, 65, 128, 575, 576, 577, 1536, 4099};

// `size` elements that begin `misaligned` elements behind a 64 byte boundary, between two runs of
// guard bytes. Inputs need the guards too: what a kernel reads behind them must not show.
template <typename T>
class Guarded {
 public:
  explicit Guarded(std::size_t size, std::size_t misaligned = 1)
      : bytes_(size * sizeof(T) + 2 * kGuard + 64 + misaligned * sizeof(T), kFill), size_(size) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data()) + kGuard;
    begin_ = kGuard + (64 - address % 64) % 64 + misaligned * sizeof(T);
  }

  std::span<T> span() { return {reinterpret_cast<T*>(bytes_.data() + begin_), size_}; }
  std::span<const T> view() const {
    return {reinterpret_cast<const T*>(bytes_.data() + begin_), size_};
  }
  operator std::span<T>() { return span(); }              // NOLINT implicit
  operator std::span<const T>() const { return view(); }  // NOLINT implicit
  T& operator[](std::size_t i) { return span()[i]; }
  const T& operator[](std::size_t i) const { return view()[i]; }
  std::size_t size() const { return size_; }

  // True while every byte outside of the elements is as it was.
  bool intact() const {
    const std::size_t end = begin_ + size_ * sizeof(T);
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      if ((i < begin_ || i >= end) && bytes_[i] != kFill) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kGuard = 192;
  // As f32 0xFFFFFFFF, a NaN: a kernel that lets it into a result is found out.
  static constexpr std::uint8_t kFill = 0xFF;
  std::vector<std::uint8_t> bytes_;
  std::size_t size_;
  std::size_t begin_;
};

using Row = Guarded<float>;

inline Row random_row(std::size_t size, float low, float high, std::uint32_t seed,
                      std::size_t misaligned = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  Row row(size, misaligned);
  for (float& value : row.span()) value = uniform(engine);
  return row;
}

// Calls `check(table, size, misaligned)` for every table that runs here, every size, two offsets.
template <typename Check>
void for_each_case(Check check) {
  for (const KernelTable* table : available_kernels()) {
    for (const std::size_t size : kSizes) {
      for (const std::size_t misaligned : {std::size_t{0}, std::size_t{3}}) {
        SCOPED_TRACE(std::string(table->isa) + ", size " + std::to_string(size) +
                     ", misaligned by " + std::to_string(misaligned));
        check(*table, size, misaligned);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

inline constexpr double kEpsilon = 0x1p-23;  // distance from 1 to the next f32

// |got - expected| <= relative * |expected| + absolute, the same special values otherwise.
inline void expect_close(float got, double expected, double relative, double absolute,
                         std::size_t index) {
  if (!std::isfinite(expected) || !std::isfinite(got)) {
    EXPECT_TRUE((std::isnan(expected) && std::isnan(got)) || got == expected)
        << "element " << index << ": got " << got << ", expected " << expected;
    return;
  }
  EXPECT_LE(std::abs(got - expected), relative * std::abs(expected) + absolute)
      << "element " << index << ": got " << got << ", expected " << expected;
}

}  // namespace hone::kernels
