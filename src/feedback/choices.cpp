// SPDX-License-Identifier: Apache-2.0
#include "feedback/choices.h"

#include <algorithm>
#include <cmath>

namespace hone::feedback {

ChoiceLoss choice_loss(std::span<const float> losses, const TokenBatch& batch) {
  const std::size_t count = batch.choice_questions.size();
  std::vector<double> scores(count, 0.0);  // mean log-probabilities
  std::vector<double> tokens(count, 0.0);
  for (std::size_t row = 0; row < batch.row_choices.size(); ++row) {
    const auto choice = static_cast<std::size_t>(batch.row_choices[row]);
    scores[choice] -= double{losses[row]};
    tokens[choice] += 1;
  }
  for (std::size_t i = 0; i < count; ++i) scores[i] /= std::max(tokens[i], 1.0);
  const double weight = 1.0 / (1.0 + static_cast<double>(batch.choice_questions.back()));
  ChoiceLoss out;
  std::vector<double> by_score(count, 0.0);  // of the loss
  for (std::size_t first = 0; first < count;) {
    std::size_t last = first;
    while (last < count && batch.choice_questions[last] == batch.choice_questions[first]) ++last;
    const auto range = std::span(scores).subspan(first, last - first);
    const double top = *std::ranges::max_element(range);
    double sum = 0;
    for (const double score : range) sum += std::exp(score - top);
    out.losses.push_back(weight * (top + std::log(sum) - range[0]));
    out.loss += out.losses.back();
    const auto others = range.subspan(1);
    if (std::ranges::all_of(others, [&](double score) { return score < range[0]; })) ++out.right;
    for (std::size_t i = first; i < last; ++i) {
      by_score[i] = weight * (std::exp(scores[i] - top) / sum - (i == first ? 1.0 : 0.0));
    }
    first = last;
  }
  for (std::size_t row = 0; row < batch.row_choices.size(); ++row) {
    const auto choice = static_cast<std::size_t>(batch.row_choices[row]);
    out.slopes.push_back(-by_score[choice] / std::max(tokens[choice], 1.0));
  }
  out.scores = std::move(scores);
  return out;
}

}  // namespace hone::feedback
