// SPDX-License-Identifier: Apache-2.0
#include "optim/sam.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/random.h"
#include "optim/sums.h"

namespace hone::optim {
namespace {

// Four normal numbers of one draw of Philox: elements 4 block … 4 block + 3.
std::array<float, 4> normals(std::uint64_t seed, std::uint64_t tensor, std::uint64_t block) {
  const auto low = [](std::uint64_t value) { return static_cast<std::uint32_t>(value); };
  const auto draws = philox({low(block), low(block >> 32), low(tensor), low(tensor >> 32)}, seed);
  std::array<float, 4> out{};
  for (std::size_t pair = 0; pair < 2; ++pair) {
    // In (0, 1], so that the logarithm is finite.
    const double u = (static_cast<double>(draws[2 * pair]) + 1.0) * 0x1p-32;
    const double angle = 2.0 * std::numbers::pi * 0x1p-32 * draws[2 * pair + 1];
    const double radius = std::sqrt(-2.0 * std::log(u));
    out[2 * pair] = static_cast<float>(radius * std::cos(angle));
    out[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return out;
}

}  // namespace

double Ascent::ascend(Tensors direction, double rho) {
  const double factor = rho / (global_norm(direction) + 1e-12);
  if (copy_.empty()) {
    for (const std::span<float> tensor : weights_) copy_.emplace_back(tensor.begin(), tensor.end());
  }
  for (std::size_t t = 0; t < weights_.size(); ++t) {
    for (std::size_t i = 0; i < weights_[t].size(); ++i) {
      weights_[t][i] = copy_[t][i] + static_cast<float>(factor * direction[t][i]);
    }
  }
  return factor;
}

void Ascent::restore() {
  for (std::size_t t = 0; t < copy_.size(); ++t) {
    std::copy(copy_[t].begin(), copy_[t].end(), weights_[t].begin());
  }
  copy_.clear();
}

void add_noise(std::span<float> weights, double scale, std::uint64_t seed, std::uint64_t tensor,
               std::int64_t begin) {
  std::array<float, 4> z{};
  std::uint64_t drawn = 0;
  bool has_drawn = false;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::uint64_t element = static_cast<std::uint64_t>(begin) + i;
    if (!has_drawn || drawn != element / 4) {
      drawn = element / 4;
      has_drawn = true;
      z = normals(seed, tensor, drawn);
    }
    weights[i] += static_cast<float>(scale * z[element % 4]);
  }
}

void samo_direction(Tensors global, const SamoProbe& probe, const SamoSettings& settings,
                    std::span<const std::span<float>> out) {
  const double difference = (probe.loss_up - probe.loss_down) / (2.0 * settings.mu);
  for (std::size_t t = 0; t < global.size(); ++t) {
    std::fill(out[t].begin(), out[t].end(), 0.0f);
    add_noise(out[t], 1.0, probe.seed, t);
    // |G_k| is |difference| |z|: of the difference only the sign survives the renormalisation.
    const double length = std::sqrt(sum_of_squares(out[t]));
    const double wanted = std::sqrt(sum_of_squares(global[t]));
    const double sign = difference > 0.0 ? 1.0 : difference < 0.0 ? -1.0 : 0.0;
    const double factor = length > 0.0 ? sign * wanted / length : 0.0;
    for (std::size_t i = 0; i < out[t].size(); ++i) {
      out[t][i] = static_cast<float>(settings.alpha * global[t][i] +
                                     (1.0 - settings.alpha) * factor * out[t][i]);
    }
  }
}

}  // namespace hone::optim
