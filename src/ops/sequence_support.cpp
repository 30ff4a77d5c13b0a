// SPDX-License-Identifier: Apache-2.0
#include "ops/sequence_support.h"

#include <algorithm>
#include <cmath>

namespace hone::ops {

bool is_sequence_attention(Types operands, const Attributes& attributes) {
  if (operands.size() < 4) return false;
  for (std::size_t i = 0; i < 3; ++i) {
    if (!is_dense(operands[i]) || operands[i].shape.size() != 2) return false;
  }
  const std::int64_t heads = attributes.integer("heads");
  if (heads <= 0 || operands[0].columns() % heads != 0 || operands[1] != operands[2]) return false;
  const std::int64_t head_size = operands[0].columns() / heads;
  const std::int64_t kv_heads = operands[1].columns() / head_size;
  return head_size % 8 == 0 && kv_heads > 0 && operands[1].columns() % head_size == 0 &&
         heads % kv_heads == 0 && operands[1].rows() == operands[0].rows() &&
         is_indices(operands[3]) && operands[3].shape[0] >= 2 && attributes.number("scale") > 0 &&
         attributes.integer("window") >= 0 && attributes.number("soft_cap") >= 0;
}

SequenceSizes sequence_sizes(const Evaluation& evaluation) {
  const auto heads = static_cast<std::size_t>(evaluation.attributes.integer("heads"));
  const std::size_t size = static_cast<std::size_t>(evaluation.operands[0]->type.columns()) / heads;
  return {heads, static_cast<std::size_t>(evaluation.operands[1]->type.columns()) / size, size};
}

void for_each_query(const Evaluation& evaluation,
                    const std::function<void(const SequenceScores&)>& f) {
  const SequenceSizes sizes = sequence_sizes(evaluation);
  const std::vector<double>& queries = evaluation.operands[0]->data;
  const std::vector<double>& keys = evaluation.operands[1]->data;
  const std::vector<double>& offsets = evaluation.operands[3]->data;
  const double scale = evaluation.attributes.number("scale");
  const double cap = evaluation.attributes.number("soft_cap");
  const auto window = static_cast<std::size_t>(evaluation.attributes.integer("window"));
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    const auto begin = static_cast<std::size_t>(offsets[s]);
    const auto end = static_cast<std::size_t>(offsets[s + 1]);
    for (std::size_t token = begin; token < end; ++token) {
      for (std::size_t head = 0; head < sizes.heads; ++head) {
        SequenceScores at{token, head, begin, {}, {}};
        if (window > 0 && token + 1 > begin + window) at.first = token + 1 - window;
        for (std::size_t other = at.first; other <= token; ++other) {
          double score = 0;
          for (std::size_t d = 0; d < sizes.head_size; ++d) {
            score += queries[sizes.query(token, head) + d] * keys[sizes.key(other, head) + d];
          }
          score *= scale;
          const double bent = cap > 0 ? std::tanh(score / cap) : 0;
          at.scores.push_back(cap > 0 ? cap * bent : score);
          at.slopes.push_back(scale * (1 - bent * bent));
        }
        f(at);
      }
    }
  }
}

Cost sequence_cost(Types operands, Types results, const Attributes& attributes, double products) {
  const auto tokens = static_cast<double>(operands[0].rows());
  const auto window = static_cast<double>(attributes.integer("window"));
  double pairs = tokens * (tokens + 1) / 2;
  if (window > 0) pairs = std::min(pairs, tokens * window);
  const double width = static_cast<double>(operands[0].columns());
  return {2 * products * pairs * width, total_bytes(operands) + total_bytes(results)};
}

std::vector<Example> sequence_examples(
    double tolerance,
    const std::function<std::vector<ExampleOperand>(const Type& queries, const Type& keys,
                                                    const Type& log_sum)>& more) {
  const auto example = [&](std::vector<double> offsets, std::int64_t heads, std::int64_t kv_heads,
                           std::int64_t head_size, Attributes attributes,
                           std::int64_t padding = 0) {
    const std::int64_t tokens = static_cast<std::int64_t>(offsets.back()) + padding;
    const auto bounds = static_cast<std::int64_t>(offsets.size());
    const Type queries = tensor_type({tokens, heads * head_size});
    const Type keys = tensor_type({tokens, kv_heads * head_size});
    attributes.set("heads", heads);
    attributes.set("scale", 1.0 / std::sqrt(static_cast<double>(head_size)));
    Example made{{{queries},
                  {keys},
                  {keys},
                  {tensor_type({bounds}, DType::kI32), Fill::kIota, 0, std::move(offsets)}},
                 std::move(attributes),
                 tolerance};
    for (ExampleOperand& operand : more(queries, keys, tensor_type({tokens, heads}))) {
      made.operands.push_back(std::move(operand));
    }
    return made;
  };
  return {example({0, 1, 8, 41}, 4, 2, 16, {}),
          example({0, 33, 34}, 3, 1, 24, {{"window", std::int64_t{5}}}),
          example({0, 7, 7, 20}, 2, 2, 8, {{"soft_cap", 1.5}}, 3),
          example({0, 100, 133}, 3, 1, 64, {{"window", std::int64_t{77}}, {"soft_cap", 20.0}})};
}

}  // namespace hone::ops
