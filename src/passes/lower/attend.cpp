// Lowering of attention: how a ragged batch is shared between threads.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "passes/lower/lower.h"
#include "passes/lower/support.h"

namespace hone::passes {
namespace {

using runtime::Frame;
using runtime::Place;
using runtime::StepFunction;
using runtime::Worker;

// Query tokens that one call takes: enough to reuse every key that it loads, few enough that the
// causal triangle splits evenly.
constexpr int kChunkTokens = 32;

struct Attend {
  kernels::CacheLayout layout;
  RowSpan queries, out;
  Place cache, positions, offsets, pages;
  std::size_t pages_each = 0;
  int heads = 1;
  float scale = 1;
  int window = 0;
  float soft_cap = 0;
  const kernels::KernelTable* kernels = nullptr;

  // A call: tokens [first, first + count) of one sequence, query heads [head, head_end).
  struct Item {
    std::size_t sequence;
    int first, count, head, head_end;
  };

  void compute(const Frame& frame, Worker worker, const Item& item) const {
    const runtime::CachePages& pool = frame.caches[cache.at];
    kernels::AttentionTask task;
    task.layout = layout;
    task.key_pool = pool.keys;
    task.value_pool = pool.values;
    task.pages =
        frame.read_integers(pages, worker.thread).subspan(item.sequence * pages_each, pages_each);
    task.queries = queries.read(frame, worker, item.first).data();
    task.query_stride = queries.columns;
    task.out = out.write(frame, worker, item.first).data();
    task.out_stride = out.columns;
    task.query_heads = heads;
    task.tokens = item.count;
    task.first_position =
        frame.read_integers(positions, worker.thread)[static_cast<std::size_t>(item.first)];
    task.first_head = item.head;
    task.last_head = item.head_end;
    task.scale = scale;
    task.window = window;
    task.soft_cap = soft_cap;
    task.scratch = frame.scratch_of(worker.thread);
    kernels->paged_attention(task);
  }

  // Calls f(item, cost) for every item of the batch, in one order on all threads. The cost is the
  // number of keys that are read times the heads that read them.
  template <typename Function>
  void for_each(const Frame& frame, Worker worker, const Function& f) const {
    const auto bounds = frame.read_integers(offsets, worker.thread);
    const auto position = frame.read_integers(positions, worker.thread);
    const int group = heads / layout.kv_heads;
    for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
      for (int first = bounds[s]; first < bounds[s + 1]; first += kChunkTokens) {
        const int count = std::min(kChunkTokens, bounds[s + 1] - first);
        // Few tokens read keys for their own heads alone; many share a head's keys.
        const int step = count == 1 && layout.kv_heads < 2 * worker.threads ? 1 : group;
        std::int64_t keys = position[static_cast<std::size_t>(first)] + count;
        if (window > 0) keys = std::min<std::int64_t>(keys, window + count);
        for (int head = 0; head < heads; head += step) {
          f(Item{s, first, count, head, std::min(head + step, heads)}, keys * count * step);
        }
      }
    }
  }

  void operator()(const Frame& frame, Worker worker) const {
    std::int64_t total = 0;
    for_each(frame, worker, [&](const Item&, std::int64_t cost) { total += cost; });
    // An item belongs to the thread in whose share of the cost its middle falls; neighbours that
    // are the same tokens become one call.
    std::int64_t before = 0;
    bool pending = false;
    Item joined{};
    for_each(frame, worker, [&](const Item& item, std::int64_t cost) {
      const std::int64_t middle = 2 * before + cost;
      before += cost;
      if (middle * worker.threads / (2 * std::max<std::int64_t>(total, 1)) != worker.thread) return;
      if (pending && joined.first == item.first && joined.head_end == item.head) {
        joined.head_end = item.head_end;
        return;
      }
      if (pending) compute(frame, worker, joined);
      joined = item;
      pending = true;
    });
    if (pending) compute(frame, worker, joined);
  }
};

}  // namespace

Result<StepFunction> lower_attention(Lowering& lowering, const ir::Operation& operation) {
  const auto& operands = operation.operands;
  const ir::Type& cache = lowering.type(operands[1]);
  Attend attend;
  attend.layout = {lowering.options().cache, static_cast<int>(cache.shape[0]),
                   static_cast<int>(cache.shape[1])};
  attend.queries = row_span(lowering, operands[0]);
  attend.out = row_span(lowering, operation.results[0]);
  attend.cache = lowering.place(operands[1]);
  attend.positions = lowering.place(operands[2]);
  attend.offsets = lowering.place(operands[3]);
  attend.pages = lowering.place(operands[4]);
  attend.pages_each = static_cast<std::size_t>(lowering.type(operands[4]).columns());
  attend.heads = static_cast<int>(operation.attributes.integer("heads"));
  attend.scale = static_cast<float>(operation.attributes.number("scale"));
  attend.window = static_cast<int>(operation.attributes.integer("window"));
  attend.soft_cap = static_cast<float>(operation.attributes.number("soft_cap"));
  attend.kernels = &lowering.kernels();
  lowering.want_scratch(kernels::attention_scratch_bytes(attend.layout));
  return StepFunction(attend);
}

}  // namespace hone::passes
