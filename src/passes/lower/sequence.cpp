// Lowering of attention among a batch's own tokens: how ragged sequences are shared between
// threads. Cuts are at fixed places, so that the bits do not depend on the number of threads.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/sequence_attention.h"
#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using kernels::kSequenceKeys;
using kernels::kSequenceQueries;
using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

// What both directions have in common. Rows are tokens.
struct Sequences {
  kernels::SequenceShape shape;  // but for the number of tokens
  RowSpan queries, keys, values;
  Place offsets;

  struct Tokens {
    int begin, count;
  };

  // Calls f(tokens) for every sequence.
  template <typename Function>
  void for_each(const Frame& frame, Worker worker, const Function& f) const {
    const auto bounds = frame.read_integers(offsets, worker.thread);
    const auto rows = static_cast<std::int32_t>(queries.rows);
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      const std::int32_t begin = std::clamp(bounds[s], 0, rows);
      const std::int32_t end = std::clamp(bounds[s + 1], begin, rows);
      if (end > begin) f(Tokens{begin, end - begin});
    }
  }

  // Rows that are of no sequence are padding: a worker's share of them becomes zeros.
  void clear_padding(const Frame& frame, Worker worker,
                     std::initializer_list<RowSpan> results) const {
    const auto bounds = frame.read_integers(offsets, worker.thread);
    const Range share = share_of(queries.rows, worker.thread, worker.threads);
    for (const RowSpan& result : results) {
      for (std::int64_t row = share.begin; row < share.end; ++row) {
        if (row >= bounds.front() && row < bounds.back()) continue;
        const auto out = result.write(frame, worker, row);
        std::fill(out.begin(), out.end(), 0.0f);
      }
    }
  }

  // Pairs of the queries [first, last) and the keys that they see, about.
  std::int64_t pairs(int first, int last) const {
    const std::int64_t middle = (first + last + 1) / 2;
    const std::int64_t seen =
        shape.window > 0 ? std::min<std::int64_t>(middle, shape.window) : middle;
    return (last - first) * std::max<std::int64_t>(seen, 1);
  }
};

Sequences sequences_of(const Lowering& lowering, const ir::Operation& operation) {
  const ir::Attributes& attributes = operation.attributes;
  Sequences all;
  all.queries = row_span(lowering, operation.operands[0]);
  all.keys = row_span(lowering, operation.operands[1]);
  all.values = row_span(lowering, operation.operands[2]);
  all.offsets = lowering.place(operation.operands[3]);
  all.shape.heads = static_cast<int>(attributes.integer("heads"));
  all.shape.head_size = static_cast<int>(all.queries.columns) / all.shape.heads;
  all.shape.kv_heads = static_cast<int>(all.keys.columns) / all.shape.head_size;
  all.shape.scale = static_cast<float>(attributes.number("scale"));
  all.shape.window = static_cast<int>(attributes.integer("window"));
  all.shape.soft_cap = static_cast<float>(attributes.number("soft_cap"));
  return all;
}

// Calls run(item) for the items that are this worker's: each belongs to the thread in whose share
// of the cost its middle falls. for_each(f) calls f(item, cost), in one order on all threads.
// Returns the largest cost that a thread gets, over the even share.
template <typename Item, typename ForEach, typename Run>
double share_by_cost(Worker worker, const ForEach& for_each, const Run& run) {
  std::int64_t total = 0;
  for_each([&](const Item&, std::int64_t cost) { total += cost; });
  std::int64_t before = 0;
  std::int64_t load = 0;
  std::int64_t largest = 0;
  std::int64_t owner_before = 0;
  for_each([&](const Item& item, std::int64_t cost) {
    const std::int64_t middle = 2 * before + cost;
    before += cost;
    const std::int64_t owner = middle * worker.threads / (2 * std::max<std::int64_t>(total, 1));
    load = owner == owner_before ? load + cost : cost;
    owner_before = owner;
    largest = std::max(largest, load);
    if (owner == worker.thread) run(item);
  });
  return static_cast<double>(largest) * worker.threads /
         static_cast<double>(std::max<std::int64_t>(total, 1));
}

// A block of queries of one head.
struct QueryItem {
  Sequences::Tokens tokens;
  int head, first, last;
};

template <typename Run>
void share_queries(const Sequences& all, const Frame& frame, Worker worker, const Run& run) {
  const auto for_each = [&](const auto& f) {
    all.for_each(frame, worker, [&](Sequences::Tokens tokens) {
      for (int head = 0; head < all.shape.heads; ++head) {
        for (int first = 0; first < tokens.count; first += kSequenceQueries) {
          const int last = std::min(first + kSequenceQueries, tokens.count);
          f(QueryItem{tokens, head, first, last}, all.pairs(first, last));
        }
      }
    });
  };
  share_by_cost<QueryItem>(worker, for_each, run);
}

struct Attend {
  Sequences all;
  RowSpan out, log_sum;
  const kernels::KernelTable* kernels = nullptr;

  void operator()(const Frame& frame, Worker worker) const {
    all.clear_padding(frame, worker, {out, log_sum});
    share_queries(all, frame, worker, [&](const QueryItem& item) {
      kernels::SequenceAttentionTask task;
      task.shape = all.shape;
      task.shape.tokens = item.tokens.count;
      task.queries = all.queries.read(frame, worker, item.tokens.begin).data();
      task.keys = all.keys.read(frame, worker, item.tokens.begin).data();
      task.values = all.values.read(frame, worker, item.tokens.begin).data();
      task.out = out.write(frame, worker, item.tokens.begin).data();
      task.log_sum = log_sum.write(frame, worker, item.tokens.begin).data();
      task.head = item.head;
      task.first_query = item.first;
      task.last_query = item.last;
      task.scratch = frame.scratch_of(worker.thread);
      kernels->sequence_attention(task);
    });
  }
};

struct Linearize {
  Sequences all;
  RowSpan out, log_sum, query_changes, key_changes, value_changes, out_changes;
  const kernels::KernelTable* kernels = nullptr;

  void operator()(const Frame& frame, Worker worker) const {
    all.clear_padding(frame, worker, {out_changes});
    share_queries(all, frame, worker, [&](const QueryItem& item) {
      const std::int64_t row = item.tokens.begin;
      kernels::SequenceTangentTask task;
      task.shape = all.shape;
      task.shape.tokens = item.tokens.count;
      task.queries = all.queries.read(frame, worker, row).data();
      task.keys = all.keys.read(frame, worker, row).data();
      task.values = all.values.read(frame, worker, row).data();
      task.out = out.read(frame, worker, row).data();
      task.log_sum = log_sum.read(frame, worker, row).data();
      task.query_changes = query_changes.read(frame, worker, row).data();
      task.key_changes = key_changes.read(frame, worker, row).data();
      task.value_changes = value_changes.read(frame, worker, row).data();
      task.out_changes = out_changes.write(frame, worker, row).data();
      task.head = item.head;
      task.first_query = item.first;
      task.last_query = item.last;
      task.scratch = frame.scratch_of(worker.thread);
      kernels->sequence_attention_tangent(task);
    });
  }
};

struct Differentiate {
  Sequences all;
  RowSpan out, log_sum, d_out;
  RowSpan d_queries, d_keys, d_values;
  const kernels::KernelTable* kernels = nullptr;

  // The queries of some heads of one kv head, and keys. Where one item has all of a kv head, scores
  // are made once for the gradients of queries and of keys; apart, each makes its own.
  struct Item {
    Sequences::Tokens tokens;
    int head, head_end, query, query_end, key, key_end;
    bool queries, keys;
  };

  void compute(const Frame& frame, Worker worker, const Item& item) const {
    const std::int64_t row = item.tokens.begin;
    kernels::SequenceGradientTask task;
    task.shape = all.shape;
    task.shape.tokens = item.tokens.count;
    task.queries = all.queries.read(frame, worker, row).data();
    task.keys = all.keys.read(frame, worker, row).data();
    task.values = all.values.read(frame, worker, row).data();
    task.out = out.read(frame, worker, row).data();
    task.log_sum = log_sum.read(frame, worker, row).data();
    task.d_out = d_out.read(frame, worker, row).data();
    if (item.queries) task.d_queries = d_queries.write(frame, worker, row).data();
    if (item.keys) {
      task.d_keys = d_keys.write(frame, worker, row).data();
      task.d_values = d_values.write(frame, worker, row).data();
    }
    task.first_head = item.head;
    task.last_head = item.head_end;
    task.first_query = item.query;
    task.last_query = item.query_end;
    task.first_key = item.key;
    task.last_key = item.key_end;
    task.scratch = frame.scratch_of(worker.thread);
    kernels->sequence_attention_gradient(task);
  }

  // Costs count the products of a pair: 5, or 3 for queries and 4 for keys.
  template <typename Function>
  void whole_items(const Frame& frame, Worker worker, const Function& f) const {
    const int group = all.shape.heads / all.shape.kv_heads;
    all.for_each(frame, worker, [&](Sequences::Tokens tokens) {
      const int n = tokens.count;
      for (int head = 0; head < all.shape.heads; head += group) {
        f(Item{tokens, head, head + group, 0, n, 0, n, true, true}, 5 * group * all.pairs(0, n));
      }
    });
  }

  template <typename Function>
  void cut_items(const Frame& frame, Worker worker, const Function& f) const {
    const int group = all.shape.heads / all.shape.kv_heads;
    all.for_each(frame, worker, [&](Sequences::Tokens tokens) {
      const int n = tokens.count;
      for (int head = 0; head < all.shape.heads; ++head) {
        for (int query = 0; query < n; query += kSequenceQueries) {
          const int end = std::min(query + kSequenceQueries, n);
          f(Item{tokens, head, head + 1, query, end, 0, n, true, false}, 3 * all.pairs(query, end));
        }
      }
      for (int head = 0; head < all.shape.heads; head += group) {
        for (int key = 0; key < n; key += kSequenceKeys) {
          const int end = std::min(key + kSequenceKeys, n);
          // Seen from a key, the queries behind it are what keys are to a query.
          f(Item{tokens, head, head + group, 0, n, key, end, false, true},
            4 * group * all.pairs(n - end, n - key));
        }
      }
    });
  }

  void operator()(const Frame& frame, Worker worker) const {
    all.clear_padding(frame, worker, {d_queries, d_keys, d_values});
    const auto whole = [&](const auto& f) { whole_items(frame, worker, f); };
    const auto cut = [&](const auto& f) { cut_items(frame, worker, f); };
    const auto nothing = [](const Item&) {};
    const auto run = [&](const Item& item) { compute(frame, worker, item); };
    // Cut items do 7 products instead of 5: worth it where whole ones leave threads waiting.
    if (share_by_cost<Item>(worker, whole, nothing) > 7.0 / 5.0) {
      share_by_cost<Item>(worker, cut, run);
    } else {
      share_by_cost<Item>(worker, whole, run);
    }
  }
};

// A step with what all three have in common.
template <typename Step>
Step begun(Lowering& lowering, const ir::Operation& operation) {
  Step step;
  step.all = sequences_of(lowering, operation);
  step.kernels = &lowering.kernels();
  lowering.want_scratch(kernels::sequence_attention_scratch_bytes(step.all.shape.head_size));
  return step;
}

}  // namespace

Result<StepFunction> lower_sequence_attention(Lowering& lowering, const ir::Operation& operation) {
  auto step = begun<Attend>(lowering, operation);
  step.out = row_span(lowering, operation.results[0]);
  step.log_sum = row_span(lowering, operation.results[1]);
  return StepFunction(step);
}

Result<StepFunction> lower_sequence_attention_gradient(Lowering& lowering,
                                                       const ir::Operation& operation) {
  auto step = begun<Differentiate>(lowering, operation);
  step.out = row_span(lowering, operation.operands[4]);
  step.log_sum = row_span(lowering, operation.operands[5]);
  step.d_out = row_span(lowering, operation.operands[6]);
  step.d_queries = row_span(lowering, operation.results[0]);
  step.d_keys = row_span(lowering, operation.results[1]);
  step.d_values = row_span(lowering, operation.results[2]);
  return StepFunction(step);
}

Result<StepFunction> lower_sequence_attention_tangent(Lowering& lowering,
                                                      const ir::Operation& operation) {
  auto step = begun<Linearize>(lowering, operation);
  step.out = row_span(lowering, operation.operands[4]);
  step.log_sum = row_span(lowering, operation.operands[5]);
  step.query_changes = row_span(lowering, operation.operands[6]);
  step.key_changes = row_span(lowering, operation.operands[7]);
  step.value_changes = row_span(lowering, operation.operands[8]);
  step.out_changes = row_span(lowering, operation.results[0]);
  return StepFunction(step);
}

}  // namespace hone::passes
