// Attention against sums in double precision, and against itself cut in other ways, bit for bit.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "base/half.h"
#include "base/random.h"
#include "kernels/registry.h"

namespace hone::kernels {
namespace {

constexpr float kSentinel = -12345.0F;
constexpr double kRoundoff = 0x1p-24;

std::size_t index(int i) { return static_cast<std::size_t>(i); }

struct Setting {
  CacheKind kind = CacheKind::kF16;
  int kv_heads = 1;
  int group = 1;  // query heads of a kv head
  int head_size = 64;
  int tokens = 40;
  int window = 0;
  float soft_cap = 0.0F;

  int heads() const { return kv_heads * group; }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(head_size)); }
  CacheLayout layout() const { return {kind, kv_heads, head_size}; }
};

std::ostream& operator<<(std::ostream& out, const Setting& s) {
  return out << "kind " << int{static_cast<std::uint8_t>(s.kind)} << ", kv heads " << s.kv_heads
             << ", group " << s.group << ", head size " << s.head_size << ", tokens " << s.tokens
             << ", window " << s.window << ", soft cap " << s.soft_cap;
}

std::vector<float> random_values(std::size_t size, std::uint64_t stream) {
  Random random(7, stream);
  std::vector<float> values(size);
  for (float& value : values) value = random.normal();
  return values;
}

// One sequence: its queries, keys and values, and a cache whose unused bytes are all ones, which is
// NaN in f16 and f32 and makes the scales of int8 NaN. Pages lie in the pools in reverse.
struct Sequence {
  explicit Sequence(const Setting& setting)
      : s(setting), row(index(s.heads() * s.head_size)), kv_row(index(s.kv_heads * s.head_size)) {
    queries = random_values(index(s.tokens) * row, 1);
    keys = random_values(index(s.tokens) * kv_row, 2);
    values = random_values(index(s.tokens) * kv_row, 3);
    const int count = (s.tokens + kPageTokens - 1) / kPageTokens;
    for (int page = count - 1; page >= 0; --page) pages.push_back(page);
    key_pool.assign(index(count) * s.layout().page_bytes_key(), std::byte{0xff});
    value_pool.assign(index(count) * s.layout().page_bytes_value(), std::byte{0xff});
  }

  void store(const KernelTable& table, int token) {
    const std::size_t size = s.layout().page_bytes_key();
    const std::size_t at = index(pages[index(token / kPageTokens)]) * size;
    table.paged_store(s.layout(), std::span(key_pool).subspan(at, size),
                      std::span(value_pool).subspan(at, size), token % kPageTokens,
                      std::span(keys).subspan(index(token) * kv_row, kv_row),
                      std::span(values).subspan(index(token) * kv_row, kv_row));
  }
  void store_all(const KernelTable& table) {
    for (int token = 0; token < s.tokens; ++token) store(table, token);
  }

  // Tokens [begin, end), heads [first, last), written at their places in `out` (all tokens).
  void attend(const KernelTable& table, int begin, int end, int first, int last,
              std::vector<float>& out) const {
    AttentionTask task;
    task.layout = s.layout();
    task.key_pool = key_pool;
    task.value_pool = value_pool;
    task.pages = pages;
    task.queries = queries.data() + index(begin) * row;
    task.query_stride = row;
    task.out = out.data() + index(begin) * row;
    task.out_stride = row;
    task.query_heads = s.heads();
    task.tokens = end - begin;
    task.first_position = begin;
    task.first_head = first;
    task.last_head = last;
    task.scale = s.scale();
    task.window = s.window;
    task.soft_cap = s.soft_cap;
    const std::size_t size = attention_scratch_bytes(task.layout);
    std::vector<std::byte> scratch(size + 64, std::byte{0xa5});
    task.scratch = std::span(scratch).first(size);
    table.paged_attention(task);
    EXPECT_TRUE(std::all_of(scratch.begin() + static_cast<std::ptrdiff_t>(size), scratch.end(),
                            [](std::byte b) { return b == std::byte{0xa5}; }));
  }
  std::vector<float> empty_out() const { return std::vector<float>(queries.size(), kSentinel); }

  Setting s;
  std::size_t row;
  std::size_t kv_row;
  std::vector<float> queries;  // (tokens, heads, D) f32
  std::vector<float> keys;     // (tokens, kv heads, D) f32
  std::vector<float> values;   // (tokens, kv heads, D) f32
  std::vector<std::int32_t> pages;
  std::vector<std::byte> key_pool;
  std::vector<std::byte> value_pool;
};

// What the cache keeps of a (kv head, token)'s numbers, by the definitions in attention.h.
std::vector<float> as_cached(const std::vector<float>& from, CacheKind kind, int head_size) {
  std::vector<float> to = from;
  if (kind == CacheKind::kF16) {
    for (float& value : to) value = f16_to_f32(f32_to_f16(value));
  } else if (kind == CacheKind::kI8) {
    const std::size_t size = index(head_size);
    for (std::size_t at = 0; at < to.size(); at += size) {
      float largest = 0.0F;
      for (std::size_t i = 0; i < size; ++i) largest = std::max(largest, std::abs(to[at + i]));
      const float scale = largest / 127.0F;
      for (std::size_t i = 0; i < size; ++i) {
        to[at + i] = std::nearbyint(to[at + i] * (1.0F / scale)) * scale;
      }
    }
  }
  return to;
}

struct Expected {
  std::vector<double> out;
  std::vector<double> tolerance;  // of a row: the rounding errors of f32
};

// Softmax of all scores of a row, in double. The tolerance of a row follows the standard model with
// errors that add up as random walks (Higham and Mary 2019), lambda = 4: a score is off by
// lambda sqrt(D) u sum |q k| and a few u of its own size, a weight by twice that relatively and by
// 2^x's 2e-7, a sum of n terms by lambda sqrt(n) u.
Expected reference(const Sequence& sequence, const std::vector<float>& keys,
                   const std::vector<float>& values) {
  const Setting& s = sequence.s;
  const std::size_t size = index(s.head_size);
  Expected expected;
  expected.out.assign(sequence.queries.size(), 0.0);
  for (int t = 0; t < s.tokens; ++t) {
    const int oldest = s.window > 0 ? std::max(0, t - s.window + 1) : 0;
    for (int h = 0; h < s.heads(); ++h) {
      const std::size_t at = (index(t) * index(s.heads()) + index(h)) * size;
      const auto kv = [&](int p) {
        return (index(p) * index(s.kv_heads) + index(h / s.group)) * size;
      };
      std::vector<double> scores;
      double largest_terms = 0.0;
      double largest_value = 0.0;
      for (int p = oldest; p <= t; ++p) {
        double dot = 0.0;
        double terms = 0.0;
        for (std::size_t d = 0; d < size; ++d) {
          const double term = double{sequence.queries[at + d]} * keys[kv(p) + d];
          dot += term;
          terms += std::abs(term);
          largest_value = std::max(largest_value, std::abs(double{values[kv(p) + d]}));
        }
        double score = dot * double{s.scale()};
        if (s.soft_cap > 0) score = s.soft_cap * std::tanh(score / s.soft_cap);
        scores.push_back(score);
        largest_terms = std::max(largest_terms, terms * double{s.scale()});
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0.0;
      for (double& score : scores) sum += score = std::exp(score - largest);
      for (int p = oldest; p <= t; ++p) {
        const double weight = scores[index(p - oldest)] / sum;
        for (std::size_t d = 0; d < size; ++d) expected.out[at + d] += weight * values[kv(p) + d];
      }
      const double score_error = (4.0 * std::sqrt(s.head_size) + 8.0) * kRoundoff * largest_terms;
      const double n = static_cast<double>(scores.size());
      expected.tolerance.push_back((2.0 * score_error + 4e-7 + 4.0 * std::sqrt(n) * kRoundoff) *
                                   largest_value);
    }
  }
  return expected;
}

void expect_near(const Sequence& sequence, const std::vector<float>& out,
                 const Expected& expected) {
  const std::size_t size = index(sequence.s.head_size);
  double worst = 0.0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double error = std::abs(out[i] - expected.out[i]) / expected.tolerance[i / size];
    if (!(error <= worst)) worst = error;  // NaN too
  }
  EXPECT_LE(worst, 1.0) << "error relative to its bound; " << sequence.s;
}

std::vector<Setting> settings() {
  using enum CacheKind;
  return {
      {kF32, 1, 1, 64, 1, 0, 0.0F},    {kF32, 3, 3, 64, 131, 0, 0.0F},
      {kF16, 3, 3, 64, 131, 0, 0.0F},  {kI8, 3, 3, 64, 131, 0, 0.0F},
      {kF16, 1, 4, 256, 70, 0, 0.0F},  {kF16, 2, 1, 80, 97, 0, 0.0F},
      {kI8, 2, 8, 80, 33, 0, 0.0F},    {kF16, 1, 8, 128, 65, 0, 0.0F},
      {kI8, 1, 4, 256, 64, 7, 30.0F},  {kF32, 1, 3, 72, 100, 1, 0.0F},
      {kF16, 1, 3, 64, 200, 7, 0.0F},  {kF16, 1, 1, 64, 700, 512, 0.0F},
      {kF16, 2, 4, 96, 90, 33, 50.0F}, {kF32, 1, 1, 8, 300, 0, 1.0F},
      {kF16, 1, 13, 24, 45, 32, 0.0F}, {kF16, 1, 100, 16, 34, 0, 0.0F},
  };
}

TEST(Attention, MatchesDoublePrecision) {
  for (const Setting& setting : settings()) {
    Sequence sequence(setting);
    const auto cached = [&](const std::vector<float>& from) {
      return as_cached(from, setting.kind, setting.head_size);
    };
    const Expected expected = reference(sequence, cached(sequence.keys), cached(sequence.values));
    for (const KernelTable* table : available_kernels()) {
      SCOPED_TRACE(table->isa);
      sequence.store_all(*table);
      std::vector<float> out = sequence.empty_out();
      sequence.attend(*table, 0, setting.tokens, 0, setting.heads(), out);
      expect_near(sequence, out, expected);
    }
  }
}

// Against the numbers before they went into the cache. A key off by |dk| <= e |k| moves a score by
// at most e sum |q k|, a value by e |v|, with e = 2^-11 for f16; for int8 an element moves by
// max |x| / 254. Errors of scores add as in Cauchy-Schwarz: |q . dk| <= |q| |dk|.
TEST(Attention, CacheErrorsStayInTheirBounds) {
  for (const CacheKind kind : {CacheKind::kF16, CacheKind::kI8}) {
    Sequence sequence({kind, 1, 2, 64, 80, 0, 0.0F});
    sequence.store_all(kernels());
    Expected expected = reference(sequence, sequence.keys, sequence.values);
    const auto largest = [](const std::vector<float>& values) {
      float result = 0.0F;
      for (float value : values) result = std::max(result, std::abs(value));
      return double{result};
    };
    const double relative = kind == CacheKind::kF16 ? 0x1p-11 : 1.0 / 254.0;
    const double key_error = relative * largest(sequence.keys) * std::sqrt(64.0);
    for (std::size_t r = 0; r < expected.tolerance.size(); ++r) {
      double square = 0.0;
      for (std::size_t d = 0; d < 64; ++d) square += std::pow(sequence.queries[r * 64 + d], 2);
      const double score_error = std::sqrt(square) * key_error * double{sequence.s.scale()};
      expected.tolerance[r] += largest(sequence.values) * (relative + std::expm1(2 * score_error));
    }
    std::vector<float> out = sequence.empty_out();
    sequence.attend(kernels(), 0, 80, 0, 2, out);
    expect_near(sequence, out, expected);
  }
}

TEST(Attention, BitsDoNotDependOnTheCut) {
  std::vector<Setting> cases = settings();
  for (const Setting& setting : cases) {
    for (const KernelTable* table : available_kernels()) {
      SCOPED_TRACE(testing::Message() << table->isa << ": " << setting);
      // Step by step, while the cache behind the token is still garbage; heads in two calls.
      Sequence stepwise(setting);
      std::vector<float> steps = stepwise.empty_out();
      const int middle = setting.heads() / 2;
      for (int t = 0; t < setting.tokens; ++t) {
        stepwise.store(*table, t);
        if (middle > 0) stepwise.attend(*table, t, t + 1, 0, middle, steps);
        stepwise.attend(*table, t, t + 1, middle, setting.heads(), steps);
      }
      // At once; then in chunks that begin anywhere, head by head.
      std::vector<float> whole = stepwise.empty_out();
      stepwise.attend(*table, 0, setting.tokens, 0, setting.heads(), whole);
      std::vector<float> chunks = stepwise.empty_out();
      for (int begin = 0; begin < setting.tokens; begin += 37) {
        const int end = std::min(setting.tokens, begin + 37);
        for (int head = 0; head < setting.heads(); ++head) {
          stepwise.attend(*table, begin, end, head, head + 1, chunks);
        }
      }
      const std::size_t bytes = whole.size() * sizeof(float);
      EXPECT_EQ(std::memcmp(whole.data(), steps.data(), bytes), 0);
      EXPECT_EQ(std::memcmp(whole.data(), chunks.data(), bytes), 0);
      for (float value : whole) ASSERT_TRUE(std::isfinite(value));
    }
  }
}

TEST(Attention, WritesOnlyItsHeadsAndTokens) {
  Sequence sequence({CacheKind::kF16, 2, 2, 72, 50, 0, 0.0F});
  for (const KernelTable* table : available_kernels()) {
    sequence.store_all(*table);
    std::vector<float> out = sequence.empty_out();
    sequence.attend(*table, 10, 45, 1, 3, out);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t token = i / (4 * 72);
      const std::size_t head = i / 72 % 4;
      const bool inside = token >= 10 && token < 45 && head >= 1 && head < 3;
      ASSERT_EQ(out[i] != kSentinel, inside) << table->isa << ", element " << i;
    }
  }
}

// A page that the window has left behind may have gone to another sequence.
TEST(Attention, PagesBehindTheWindowAreNotRead) {
  Sequence sequence({CacheKind::kF16, 1, 3, 64, 170, 40, 0.0F});
  for (const KernelTable* table : available_kernels()) {
    sequence.store_all(*table);
    std::vector<float> before = sequence.empty_out();
    sequence.attend(*table, 130, 170, 0, 3, before);
    // Token 130 sees positions from 91 on: pages 0 and 1 are behind it.
    Sequence forgotten = sequence;
    forgotten.pages[0] = forgotten.pages[1] = -1000000;
    std::vector<float> after = sequence.empty_out();
    forgotten.attend(*table, 130, 170, 0, 3, after);
    EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
  }
}

// Values of later tokens are infinite and NaN: no earlier token may notice.
TEST(Attention, LaterValuesDoNotLeak) {
  for (const KernelTable* table : available_kernels()) {
    Sequence sequence({CacheKind::kF32, 1, 3, 64, 31, 0, 0.0F});
    sequence.store_all(*table);
    std::vector<float> clean = sequence.empty_out();
    sequence.attend(*table, 0, 31, 0, 3, clean);
    for (std::size_t i = 20 * 64; i < sequence.values.size(); ++i) {
      sequence.keys[i] = std::numeric_limits<float>::quiet_NaN();
      sequence.values[i] = std::numeric_limits<float>::infinity();
    }
    sequence.store_all(*table);
    std::vector<float> out = sequence.empty_out();
    sequence.attend(*table, 0, 31, 0, 3, out);
    EXPECT_EQ(std::memcmp(clean.data(), out.data(), index(20 * 3 * 64) * sizeof(float)), 0);
  }
}

// Two tokens with scores x and 0 and values 0 and 1: the output is the weight 1 / (1 + e^x).
TEST(Attention, WeightsAreAccurate) {
  for (const KernelTable* table : available_kernels()) {
    for (const float cap : {0.0F, 20.0F}) {
      for (float x = -40.0F; x <= 40.0F; x += 0.37F) {
        Sequence sequence({CacheKind::kF32, 1, 1, 16, 2, 0, cap});
        std::fill(sequence.queries.begin(), sequence.queries.end(), 0.0F);
        std::fill(sequence.keys.begin(), sequence.keys.end(), 0.0F);
        sequence.queries[16] = 4.0F;  // scale is 1/4
        sequence.keys[0] = x;
        std::fill(sequence.values.begin(), sequence.values.begin() + 16, 0.0F);
        std::fill(sequence.values.begin() + 16, sequence.values.end(), 1.0F);
        sequence.store_all(*table);
        std::vector<float> out = sequence.empty_out();
        sequence.attend(*table, 1, 2, 0, 1, out);
        double score = x;
        if (cap > 0) score = double{cap} * std::tanh(score / double{cap});
        const double weight = 1.0 / (1.0 + std::exp(score));
        // 2^x is off by 2e-7; its argument by 4 roundings of x, with a cap by tanh's 4e-7 too.
        const double tolerance = 6e-7 + std::abs(score) * (4 * kRoundoff + (cap > 0 ? 4e-7 : 0.0));
        EXPECT_NEAR(out[16] / weight, 1.0, tolerance) << table->isa << " " << x << " cap " << cap;
      }
    }
  }
}

TEST(Attention, StoresWhatTheLayoutSays) {
  for (const KernelTable* table : available_kernels()) {
    Sequence sequence({CacheKind::kF16, 2, 1, 24, 5, 0, 0.0F});
    sequence.keys[3] = 1e9F;
    sequence.keys[4] = -1e9F;
    sequence.store_all(*table);
    const auto half_at = [](const std::vector<std::byte>& pool, std::size_t element) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, pool.data() + 2 * element, 2);
      return bits;
    };
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      for (std::size_t i = 0; i < 48; ++i) {
        const std::size_t head = i / 24;
        const std::size_t d = i % 24;
        const auto expected = [&](const std::vector<float>& from) {
          if (t >= 5) return std::uint16_t{0xffff};
          return f32_to_f16(std::clamp(from[t * 48 + i], -65504.0F, 65504.0F));
        };
        EXPECT_EQ(half_at(sequence.key_pool, (head * 24 + d) * kPageTokens + t),
                  expected(sequence.keys));
        EXPECT_EQ(half_at(sequence.value_pool, (head * kPageTokens + t) * 24 + d),
                  expected(sequence.values));
      }
    }
  }
}

}  // namespace
}  // namespace hone::kernels
