// Every form of softmax and log-sum-exp against double: sizes, masks, huge rows, merged pieces.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>

#include "kernels/battery.h"

namespace hone::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Form {
  const char* name;
  std::function<void(const KernelTable&, std::span<const float>, std::span<float>)> run;
  bool subtracts_in_f32;  // x - max rounds; the extended forms do not
};

std::vector<Form> forms() {
  std::vector<Form> all;
  for (const bool stream : {false, true}) {
    all.push_back({stream ? "two pass, streamed" : "two pass",
                   [stream](const KernelTable& t, std::span<const float> x, std::span<float> out) {
                     t.softmax_two_pass(x, out, stream);
                   },
                   false});
    all.push_back({stream ? "reload, streamed" : "reload",
                   [stream](const KernelTable& t, std::span<const float> x, std::span<float> out) {
                     t.softmax_three_pass_reload(x, out, stream);
                   },
                   true});
    all.push_back({stream ? "recompute, streamed" : "recompute",
                   [stream](const KernelTable& t, std::span<const float> x, std::span<float> out) {
                     t.softmax_three_pass_recompute(x, out, stream);
                   },
                   true});
  }
  for (const std::size_t cache : {std::size_t{0}, std::size_t{600}, std::size_t{1} << 30}) {
    all.push_back({cache > 600 ? "chosen, inside the cache" : "chosen, near or beyond it",
                   [cache](const KernelTable& t, std::span<const float> x, std::span<float> out) {
                     t.softmax(x, out, cache);
                   },
                   true});
  }
  return all;
}

double log_sum_exp(std::span<const float> x) {
  double top = -kInfinity;
  for (const float value : x) top = std::max(top, static_cast<double>(value));
  if (!(top > -kInfinity)) return top;
  double sum = 0.0;
  for (const float value : x) sum += std::exp(value - top);
  return std::log(sum) + top;
}

// Terms: exponential 2 eps, f32 sums over a block of 4096 elements in at least 4 lanes (scalar:
// 1024 additions in a row, random signs: far below the worst case of 512 eps), quotient 2 eps.
// x - max in f32 loses up to half a unit of |max - x|, which is at most 88 where it matters.
double softmax_bound(bool subtracts_in_f32) {
  return kEpsilon * (16.0 + (subtracts_in_f32 ? 64.0 : 0.0));
}

void expect_softmax(std::span<const float> x, std::span<const float> out, double relative) {
  const double lse = log_sum_exp(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    // Results near 2^-126 may be flushed to 0.
    expect_close(out[i], std::exp(x[i] - lse), relative, 0x1p-120, i);
  }
}

TEST(Softmax, EveryFormMatchesDouble) {
  const std::vector<Form> all = forms();
  for_each_case([&](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    for (const float range : {1.0f, 20.0f, 1000.0f}) {
      const Row x = random_row(size, -range, range, 21, misaligned);
      for (const Form& form : all) {
        SCOPED_TRACE(form.name);
        Row out(size, misaligned == 0 ? 1 : 0);
        form.run(table, x, out);
        expect_softmax(x, out, softmax_bound(form.subtracts_in_f32));
        ASSERT_TRUE(out.intact());
        Row in_place = random_row(size, -range, range, 21, misaligned);
        form.run(table, in_place, in_place);
        if (form.subtracts_in_f32 && std::string(form.name).starts_with("chosen")) continue;
        for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(in_place[i], out[i]);
      }
    }
  });
}

TEST(Softmax, MaskedByMinusInfinityOrHugeNegatives) {
  for (const KernelTable* table : available_kernels()) {
    for (const float mask : {-kInfinity, -1e30f, -3e38f, -1e7f, -1e9f}) {
      for (const Form& form : forms()) {
        SCOPED_TRACE(std::string(table->isa) + ", " + form.name);
        Row x = random_row(101, -4.0f, 4.0f, 22);
        for (std::size_t i = 0; i < x.size(); i += 3) x[i] = mask;
        for (std::size_t i = 32; i < 64; ++i) x[i] = mask;  // whole vectors
        Row out(101);
        form.run(*table, x, out);
        expect_softmax(x, out, softmax_bound(true));
        EXPECT_EQ(out[0], 0.0f);
        EXPECT_EQ(out[40], 0.0f);
      }
      Row x = random_row(101, -4.0f, 4.0f, 22);
      for (std::size_t i = 0; i < 90; ++i) x[i] = mask;
      EXPECT_NEAR(table->log_sum_exp_one_pass(x), log_sum_exp(x), 1e-6);
      EXPECT_NEAR(table->log_sum_exp_two_read(x), log_sum_exp(x), 1e-6);
      EXPECT_NEAR(log_of(table->extended_sum(x)), log_sum_exp(x), 1e-6);
    }
  }
}

TEST(Softmax, NaNIsSeen) {
  for (const KernelTable* table : available_kernels()) {
    for (const Form& form : forms()) {
      SCOPED_TRACE(std::string(table->isa) + ", " + form.name);
      for (const std::size_t where : {std::size_t{0}, std::size_t{40}, std::size_t{100}}) {
        Row x = random_row(101, -4.0f, 4.0f, 22);
        x[where] = std::numeric_limits<float>::quiet_NaN();
        Row out(101);
        form.run(*table, x, out);
        EXPECT_TRUE(std::isnan(out[where]));
      }
    }
  }
}

TEST(LogSumExp, MatchesDoubleAndMerges) {
  for_each_case([](const KernelTable& table, std::size_t size, std::size_t misaligned) {
    for (const float range : {1.0f, 20.0f, 1000.0f, 100000.0f}) {
      const Row x = random_row(size, -range, range, 23, misaligned);
      const double expected = log_sum_exp(x);
      if (size == 0) {
        EXPECT_EQ(table.log_sum_exp_one_pass(x), expected);
        EXPECT_EQ(table.log_sum_exp_two_read(x), expected);
        EXPECT_EQ(log_of(table.extended_sum(x)), expected);
        continue;
      }
      const double bound = 16 * kEpsilon + 4e-16 * range;
      EXPECT_NEAR(table.log_sum_exp_one_pass(x), expected, bound);
      EXPECT_NEAR(log_of(table.extended_sum(x)), expected, bound);
      EXPECT_NEAR(table.log_sum_exp_two_read(x), expected, softmax_bound(true));
      ExtendedSum merged;
      for (std::size_t begin = 0; begin < size; begin += 29) {
        const std::size_t count = std::min<std::size_t>(29, size - begin);
        merged = merge(merged, table.extended_sum(x.view().subspan(begin, count)));
      }
      EXPECT_NEAR(log_of(merged), expected,
                  bound + 0.5 * kEpsilon * static_cast<double>(size / 29));
    }
  });
}

TEST(LogSumExp, MergeOfEmptyAndFarApart) {
  const ExtendedSum empty, one{1.0f, 0.0f}, far{1.5f, 1000.0f};
  EXPECT_EQ(log_of(merge(empty, empty)), -kInfinity);
  EXPECT_EQ(log_of(merge(empty, one)), 0.0);
  EXPECT_EQ(log_of(merge(one, empty)), 0.0);
  EXPECT_EQ(log_of(merge(one, far)), log_of(far));
  EXPECT_EQ(log_of(merge(far, one)), log_of(far));
  EXPECT_NEAR(log_of(merge(one, one)), std::log(2.0), 1e-7);
}

// One accumulator in f32 would be off by 1e-4 here.
TEST(LogSumExp, SixteenMillionTermsToOneInAMillion) {
  constexpr std::size_t kTerms = std::size_t{1} << 24;
  std::vector<float> x(kTerms);
  std::mt19937 engine(24);
  for (float& value : x) value = static_cast<float>(engine() >> 8) * 0x1p-24f * 8.0f - 4.0f;
  double sum = 0.0;
  for (const float value : x) sum += std::exp(static_cast<double>(value));
  for (const KernelTable* table : available_kernels()) {
    SCOPED_TRACE(table->isa);
    // A difference of logarithms is the relative error of the sum.
    EXPECT_NEAR(table->log_sum_exp_one_pass(x), std::log(sum), 1e-6);
    EXPECT_NEAR(table->log_sum_exp_two_read(x), std::log(sum), 1e-6);
    std::vector<float> out(kTerms);
    table->softmax_two_pass(x, out, true);
    double total = 0.0;
    for (const float value : out) total += value;
    EXPECT_NEAR(total, 1.0, 1e-6);
  }
}

}  // namespace
}  // namespace hone::kernels
