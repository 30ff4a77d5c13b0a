// Attention among a sequence's own tokens, both directions, against its definition in double; and
// the same bits however the work is cut.
// SPDX-License-Identifier: Apache-2.0
#include "kernels/sequence_attention.h"

#include <algorithm>

#include "kernels/battery.h"

namespace hone::kernels {
namespace {

struct Case {
  int tokens, heads, kv_heads, head_size, window;
  float soft_cap;
};

// Odd lengths around tiles of keys, blocks of queries and vectors; grouped heads; windows inside of
// a tile, around one, and longer than the sequence; head sizes that end in half a vector of 16.
constexpr Case kCases[] = {
    {1, 2, 1, 64, 0, 0.0F},   {7, 3, 1, 64, 0, 0.0F},     {33, 4, 2, 24, 0, 0.0F},
    {100, 3, 3, 64, 0, 0.0F}, {100, 2, 1, 8, 5, 0.0F},    {145, 2, 1, 72, 71, 0.0F},
    {217, 3, 1, 64, 0, 0.0F}, {217, 2, 2, 40, 100, 0.0F}, {65, 2, 1, 128, 0, 30.0F},
    {73, 2, 1, 256, 0, 0.0F}, {130, 2, 1, 16, 33, 2.0F},  {129, 1, 1, 64, 1, 0.0F},
    {80, 2, 1, 64, 400, 0.0F}};

SequenceShape shape_of(const Case& test) {
  return {test.tokens,
          test.heads,
          test.kv_heads,
          test.head_size,
          1.0F / std::sqrt(static_cast<float>(test.head_size)),
          test.window,
          test.soft_cap};
}

// Everything that both directions read and write.
struct Buffers {
  explicit Buffers(const SequenceShape& shape, std::size_t misaligned)
      : tokens(static_cast<std::size_t>(shape.tokens)),
        queries(random_row(tokens * shape.query_stride(), -3.0F, 3.0F, 1, misaligned)),
        keys(random_row(tokens * shape.key_stride(), -1.0F, 1.0F, 2, misaligned)),
        values(random_row(tokens * shape.key_stride(), -1.0F, 1.0F, 3, misaligned)),
        d_out(random_row(tokens * shape.query_stride(), -1.0F, 1.0F, 4, misaligned)),
        out(tokens * shape.query_stride(), misaligned),
        log_sum(tokens * static_cast<std::size_t>(shape.heads), misaligned),
        d_queries(tokens * shape.query_stride(), misaligned),
        d_keys(tokens * shape.key_stride(), misaligned),
        d_values(tokens * shape.key_stride(), misaligned),
        scratch(sequence_attention_scratch_bytes(shape.head_size), misaligned * 4) {}

  bool intact() const {
    return queries.intact() && keys.intact() && values.intact() && d_out.intact() && out.intact() &&
           log_sum.intact() && d_queries.intact() && d_keys.intact() && d_values.intact() &&
           scratch.intact();
  }

  std::size_t tokens;
  Row queries, keys, values, d_out, out, log_sum, d_queries, d_keys, d_values;
  Guarded<std::byte> scratch;
};

void forward(const KernelTable& table, const SequenceShape& shape, Buffers& b, int step) {
  SequenceAttentionTask task;
  task.shape = shape;
  task.queries = b.queries.view().data();
  task.keys = b.keys.view().data();
  task.values = b.values.view().data();
  task.out = b.out.span().data();
  task.log_sum = b.log_sum.span().data();
  task.scratch = b.scratch;
  for (task.head = 0; task.head < shape.heads; ++task.head) {
    for (int query = 0; query < shape.tokens; query += step) {
      task.first_query = query;
      task.last_query = std::min(query + step, shape.tokens);
      table.sequence_attention(task);
    }
  }
}

SequenceGradientTask gradient_task(const SequenceShape& shape, Buffers& b) {
  SequenceGradientTask task;
  task.shape = shape;
  task.queries = b.queries.view().data();
  task.keys = b.keys.view().data();
  task.values = b.values.view().data();
  task.out = b.out.view().data();
  task.log_sum = b.log_sum.view().data();
  task.d_out = b.d_out.view().data();
  task.d_queries = b.d_queries.span().data();
  task.d_keys = b.d_keys.span().data();
  task.d_values = b.d_values.span().data();
  task.last_query = task.last_key = shape.tokens;
  task.scratch = b.scratch;
  return task;
}

void backward_whole(const KernelTable& table, const SequenceShape& shape, Buffers& b) {
  const int group = shape.heads / shape.kv_heads;
  SequenceGradientTask task = gradient_task(shape, b);
  for (int head = 0; head < shape.heads; head += group) {
    task.first_head = head;
    task.last_head = head + group;
    table.sequence_attention_gradient(task);
  }
}

// Queries by block and head, keys by tile, in another order than the whole.
void backward_cut(const KernelTable& table, const SequenceShape& shape, Buffers& b) {
  const int group = shape.heads / shape.kv_heads;
  for (int head = shape.heads; head-- > 0;) {
    for (int query = 0; query < shape.tokens; query += kSequenceQueries) {
      SequenceGradientTask task = gradient_task(shape, b);
      task.d_keys = task.d_values = nullptr;
      task.first_head = head;
      task.last_head = head + 1;
      task.first_query = query;
      task.last_query = std::min(query + kSequenceQueries, shape.tokens);
      table.sequence_attention_gradient(task);
    }
  }
  for (int head = 0; head < shape.heads; head += group) {
    for (int key = (shape.tokens - 1) / kSequenceKeys * kSequenceKeys; key >= 0;
         key -= kSequenceKeys) {
      SequenceGradientTask task = gradient_task(shape, b);
      task.d_queries = nullptr;
      task.first_head = head;
      task.last_head = head + group;
      task.first_key = key;
      task.last_key = std::min(key + kSequenceKeys, shape.tokens);
      table.sequence_attention_gradient(task);
    }
  }
}

struct Expected {
  std::vector<double> out, log_sum, d_queries, d_keys, d_values;
};

Expected define(const SequenceShape& shape, const Buffers& b) {
  const auto size = static_cast<std::size_t>(shape.head_size);
  const auto heads = static_cast<std::size_t>(shape.heads);
  const std::size_t group = heads / static_cast<std::size_t>(shape.kv_heads);
  Expected e;
  e.out.resize(b.out.size());
  e.log_sum.resize(b.log_sum.size());
  e.d_queries.resize(b.out.size());
  e.d_keys.resize(b.keys.size());
  e.d_values.resize(b.keys.size());
  const auto dot = [size](const Row& a, std::size_t i, const Row& c, std::size_t j) {
    double sum = 0.0;
    for (std::size_t d = 0; d < size; ++d) sum += static_cast<double>(a[i + d]) * c[j + d];
    return sum;
  };
  for (std::size_t t = 0; t < b.tokens; ++t) {
    for (std::size_t head = 0; head < heads; ++head) {
      const std::size_t query = t * shape.query_stride() + head * size;
      const auto key = [&](std::size_t j) { return j * shape.key_stride() + head / group * size; };
      const auto window = static_cast<std::size_t>(shape.window);
      const std::size_t first = window > 0 && t + 1 > window ? t + 1 - window : 0;
      std::vector<double> weights, slopes;
      double sum = 0.0;
      for (std::size_t j = first; j <= t; ++j) {
        double score = shape.scale * dot(b.queries, query, b.keys, key(j));
        double slope = shape.scale;
        if (shape.soft_cap > 0.0F) {
          const double bent = std::tanh(score / shape.soft_cap);
          score = shape.soft_cap * bent;
          slope *= 1.0 - bent * bent;
        }
        weights.push_back(std::exp(score));
        slopes.push_back(slope);
        sum += weights.back();
      }
      e.log_sum[t * heads + head] = std::log(sum);
      for (std::size_t j = first; j <= t; ++j) {
        for (std::size_t d = 0; d < size; ++d) {
          e.out[query + d] += weights[j - first] / sum * b.values[key(j) + d];
        }
      }
      double mean = 0.0;
      for (std::size_t d = 0; d < size; ++d) mean += b.d_out[query + d] * e.out[query + d];
      for (std::size_t j = first; j <= t; ++j) {
        const double weight = weights[j - first] / sum;
        const double change =
            weight * (dot(b.d_out, query, b.values, key(j)) - mean) * slopes[j - first];
        for (std::size_t d = 0; d < size; ++d) {
          e.d_queries[query + d] += change * b.keys[key(j) + d];
          e.d_keys[key(j) + d] += change * b.queries[query + d];
          e.d_values[key(j) + d] += weight * b.d_out[query + d];
        }
      }
    }
  }
  return e;
}

// Sums of up to a few hundred terms whose sizes add up to `size` at most; and scores off by half a
// unit of a few tens, which the exponential makes relative.
void expect_near(const Row& found, const std::vector<double>& expected, double size) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], 32.0 * kEpsilon * (size + std::abs(expected[i]))) << i;
  }
}

template <class Check>
void for_each_sequence(Check check) {
  for (const KernelTable* table : available_kernels()) {
    for (const Case& test : kCases) {
      for (const std::size_t misaligned : {std::size_t{0}, std::size_t{3}}) {
        SCOPED_TRACE(std::string(table->isa) + ", " + std::to_string(test.tokens) + " tokens, " +
                     std::to_string(test.head_size) + " dimensions, window " +
                     std::to_string(test.window));
        check(*table, shape_of(test), misaligned);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(SequenceAttention, EqualsItsDefinition) {
  for_each_sequence(
      [](const KernelTable& table, const SequenceShape& shape, std::size_t misaligned) {
        Buffers b(shape, misaligned);
        const Expected expected = define(shape, b);
        forward(table, shape, b, kSequenceQueries);
        backward_whole(table, shape, b);
        ASSERT_TRUE(b.intact());
        expect_near(b.out, expected.out, 1.0);
        expect_near(b.log_sum, expected.log_sum, 1.0);
        // A token's weights add up to 1; times differences of d_out . value, which are up to
        // sqrt(D).
        const double products = std::sqrt(static_cast<double>(shape.head_size)) * shape.scale;
        expect_near(b.d_queries, expected.d_queries, products);
        // A key's weights add up over the tokens and heads that see it.
        const double sees = 3.0 * std::sqrt(static_cast<double>(shape.tokens));
        expect_near(b.d_keys, expected.d_keys, sees * products);
        expect_near(b.d_values, expected.d_values, sees);
      });
}

TEST(SequenceAttention, GivesTheSameBitsHoweverItIsCut) {
  for_each_sequence(
      [](const KernelTable& table, const SequenceShape& shape, std::size_t misaligned) {
        Buffers whole(shape, misaligned);
        Buffers cut(shape, 3 - misaligned);
        forward(table, shape, whole, (shape.tokens / kSequenceQueries + 1) * kSequenceQueries);
        forward(table, shape, cut, kSequenceQueries);
        backward_whole(table, shape, whole);
        backward_cut(table, shape, cut);
        ASSERT_TRUE(cut.intact());
        ASSERT_TRUE(std::ranges::equal(whole.out.view(), cut.out.view()));
        ASSERT_TRUE(std::ranges::equal(whole.log_sum.view(), cut.log_sum.view()));
        ASSERT_TRUE(std::ranges::equal(whole.d_queries.view(), cut.d_queries.view()));
        ASSERT_TRUE(std::ranges::equal(whole.d_keys.view(), cut.d_keys.view()));
        ASSERT_TRUE(std::ranges::equal(whole.d_values.view(), cut.d_values.view()));
      });
}

// Scores in the hundreds: the running maximum must carry them.
TEST(SequenceAttention, StandsLargeScores) {
  for (const KernelTable* table : available_kernels()) {
    SequenceShape shape = shape_of({150, 1, 1, 64, 0, 0.0F});
    shape.scale = 40.0F;
    Buffers b(shape, 0);
    forward(*table, shape, b, kSequenceQueries);
    backward_whole(*table, shape, b);
    for (const Row* row : {&b.out, &b.log_sum, &b.d_queries, &b.d_keys, &b.d_values}) {
      for (const float value : row->view()) ASSERT_TRUE(std::isfinite(value));
    }
    // Each output is an average of values.
    for (const float value : b.out.view()) ASSERT_LE(std::abs(value), 1.0F + 1e-5F);
  }
}

// Not a number in one key shows in all tokens that see it, and in no other.
TEST(SequenceAttention, NotANumberIsSeenWhereItIs) {
  for (const KernelTable* table : available_kernels()) {
    const SequenceShape shape = shape_of({90, 1, 1, 64, 20, 0.0F});
    Buffers b(shape, 0);
    b.keys[70 * 64 + 3] = std::numeric_limits<float>::quiet_NaN();
    forward(*table, shape, b, kSequenceQueries);
    for (std::size_t t = 0; t < 90; ++t) {
      EXPECT_EQ(std::isnan(b.out[t * 64]), t >= 70) << "token " << t << " on " << table->isa;
    }
  }
}

}  // namespace
}  // namespace hone::kernels
