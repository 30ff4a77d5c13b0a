// Questions whose answers are told apart by their likelihood: the loss that MeZO's prompts use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "feedback/gradient.h"

namespace hone::feedback {

struct ChoiceLoss {
  double loss = 0;  // sum over questions of the question's weight times -log of the right
                    // choice's share of e^(mean log-probability of a choice's tokens)
  std::vector<double> losses;  // of each question, in that sum
  std::int64_t right = 0;      // questions whose right choice has the largest share
  std::vector<double> scores;  // (choices): mean log-probabilities
  std::vector<double> slopes;  // (M): of the loss by each row's loss
};

// losses: of the batch's rows, each times 1 (the batch's `weights` are ones); at least as many as
// rows. Questions count the same, and their weights sum to 1 (Malladi et al. 2023, appendix E).
ChoiceLoss choice_loss(std::span<const float> losses, const TokenBatch& batch);

}  // namespace hone::feedback
