// The signal of forward passes alone: directions are tried, and what they do to the loss becomes
// the coefficients of an estimated gradient. Nothing is kept for a backward pass.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "engine/session.h"
#include "feedback/directions.h"
#include "feedback/gradient.h"
#include "optim/estimate.h"

namespace hone::feedback {

// How a direction is tried.
enum class Probe : std::uint8_t {
  kTangent,   // the exact derivative, beside the value through the same weights (forward mode)
  kPair,      // (loss(w + e z) - loss(w - e z)) / 2 e (Spall 1992; MeZO, Malladi et al. 2023)
  kOneSided,  // (loss(w + e z) - loss(w)) / e: one evaluation a direction, one shared by all
};
Result<Probe> probe_named(std::string_view name);

// Several processes that find one estimate together: what each brings comes back from all, rank
// after rank, the same bits on all of them. They share the directions or, where there are fewer
// than ranks, the examples.
struct Ranks {
  int rank = 0;
  int size = 1;
  std::function<Result<std::vector<double>>(std::span<const double> mine)> gather;
};

struct ForwardOptions {
  Probe probe = Probe::kTangent;
  std::int64_t directions = 1;
  double epsilon = 1e-3;  // of pairs and one-sided probes
  // The distance follows so that losses at it differ from the one at the parameters by this part
  // of it, on average: by at most a quarter a step, and to at most 64 times more or less than
  // epsilon. 0: it stays.
  double epsilon_target = 0;
  Noise noise = Noise::kRademacher;
  optim::Shaping shaping = optim::Shaping::kMean;
  double clip = 0;  // of each derivative; 0: none
  // Directions touch only the last so many layers; 0: all. The layers below run once for all
  // directions. kRandomLayers: another number each step, by the seed.
  std::int64_t layers = 0;
  // Of what the layers below gave, kept for sequences that come again (kept_layers.h): the
  // layers below the lowest that has something that moves.
  std::int64_t kept_layer_bytes = 0;
  // Of a matrix with so many elements, random signs are drawn inside of products; with fewer they
  // are stored. The same bits.
  std::int64_t drawn_elements = std::int64_t{1} << 16;
  std::uint64_t seed = 1;
  Ranks ranks;

  bool shares_examples() const { return ranks.size > 1 && directions < ranks.size; }
  // This rank's part of so many directions or examples.
  Range share(std::int64_t count) const { return share_of(count, ranks.rank, ranks.size); }
  Range own_directions() const {
    return shares_examples() ? Range{0, directions} : share(directions);
  }
};
inline constexpr std::int64_t kRandomLayers = -1;

// What is perturbed, and where it lies.
struct Perturbed {
  std::string name;
  ir::Shape shape;
  std::span<float> values;
  bool fixed = false;  // never moves
};

// Feedback about candidates that are all looked at first, so that they may be tried side by side.
// `look` is called with the parameters at each; then `losses` gives one for each of them, lower is
// better, or `order` names them, best first.
struct Candidates {
  std::function<Status()> look;
  std::function<Result<std::vector<double>>()> losses;
  std::function<Result<std::vector<std::int64_t>>()> order;
};

struct ForwardEstimate {
  double loss = 0;
  std::vector<double> derivatives;   // of the loss along each direction, clipped
  std::vector<double> coefficients;  // of the directions, in the estimated gradient
  std::int64_t clipped = 0;
  bool finite = true;  // all losses were; otherwise no coefficients
};

// What a step found, as a part of an estimated gradient.
struct EstimateTerm {
  std::int64_t step = 0;
  std::vector<double> coefficients;  // of its directions
};

class ForwardGradient {
 public:
  // `base`: as for Gradient, with what is perturbed as its `trained`, in the order of `tensors`.
  // The session outlives it; directions are tensors of its weights.
  static Result<std::unique_ptr<ForwardGradient>> create(
      engine::Session& session, const GradientOptions& base, std::vector<Perturbed> tensors,
      const ForwardOptions& options, std::shared_ptr<runtime::Workspace> workspace);

  // Tries the directions of a step on batches whose losses add up; where ranks share examples, on
  // this rank's part of them. Parameters are as before, to the bit.
  Result<ForwardEstimate> run(std::span<const TokenBatch> batches, std::int64_t step);
  // By losses of any kind (kTangent probes pairs here), or by an order alone, of w + epsilon z_k
  // (optim::coefficients_of_ranking).
  Result<ForwardEstimate> run(const Candidates& candidates, std::int64_t step);
  // gradients[i] = sum of the terms' coefficients times their steps' directions of tensor i: of the
  // estimate, or of what was written down of it.
  void expand(std::span<const EstimateTerm> terms, std::span<std::vector<float>> gradients) const;
  // The same of some elements of one tensor, from `begin` on, a multiple of kDirectionGranule;
  // added to what is there.
  void expand(std::span<const EstimateTerm> terms, std::size_t tensor, std::int64_t begin,
              std::span<float> gradient) const;

  // The sum of the batches' losses at the parameters as they are, of all ranks.
  Result<double> loss(std::span<const TokenBatch> batches, std::int64_t step) {
    return loss_of(batches, first_layer(step));
  }
  // The distance of the next probes.
  double epsilon() const { return epsilon_; }
  void set_epsilon(double epsilon) { epsilon_ = epsilon; }

  Result<GradientPlan> plan(const TokenBatch& batch);
  std::int64_t compiled_programs() const;
  std::int64_t direction_bytes() const;  // held beside the model
  const ForwardOptions& options() const { return options_; }
  void forget_kept();
  const KeptLayers* kept_layers() const { return base_.kept_layers.get(); }  // nullptr: none
  // Layers from this one on are perturbed in a step; the lowest is 0.
  std::int64_t first_layer(std::int64_t step) const;
  void profile(bool on);
  std::vector<std::pair<std::string, double>> profiled() const;

 private:
  ForwardGradient(engine::Session& session, std::vector<Perturbed> tensors,
                  const ForwardOptions& options)
      : session_(session),
        tensors_(std::move(tensors)),
        options_(options),
        epsilon_(options.epsilon) {}
  void keep_layers();
  Gradient& program_of(std::int64_t layer, int directions);
  bool touched(std::size_t tensor, std::int64_t first_layer) const;
  // Its directions are made inside of products, and nowhere else.
  bool drawn(std::size_t tensor) const;
  DirectionKey key_of(std::int64_t step, std::int64_t direction, std::size_t tensor) const;
  void place_directions(std::int64_t step, std::int64_t first, std::int64_t count);
  void move_to(std::int64_t step, std::int64_t direction, double distance);
  void keep();
  void put_back();
  Result<double> loss_of(std::span<const TokenBatch> batches, std::int64_t layer);
  struct Units {
    std::vector<double> losses;
    std::vector<std::vector<double>> derivatives;
  };
  Result<Units> gathered(const Units& mine) const;
  Result<std::vector<double>> all_of(std::vector<double> mine) const;
  Result<ForwardEstimate> tangents(std::span<const TokenBatch> batches, std::int64_t step);
  Result<ForwardEstimate> probes(const Candidates& candidates, std::int64_t step, Probe probe);
  Result<ForwardEstimate> ranked(const Candidates& candidates, std::int64_t step);
  Status finish(ForwardEstimate& estimate) const;
  void follow_target(std::span<const double> ends, const ForwardEstimate& estimate);

  engine::Session& session_;
  std::vector<Perturbed> tensors_;
  ForwardOptions options_;
  double epsilon_;
  GradientOptions base_;
  std::shared_ptr<runtime::Workspace> workspace_;
  std::map<std::pair<std::int64_t, int>, std::unique_ptr<Gradient>> programs_;
  std::vector<std::int64_t> layers_;               // of the tensors
  std::vector<std::vector<std::span<float>>> at_;  // [direction][tensor], of tangents
  std::vector<std::span<std::byte>> keys_;         // of directions that products draw
  std::vector<std::vector<float>> kept_;           // parameters while they are moved
};

}  // namespace hone::feedback
