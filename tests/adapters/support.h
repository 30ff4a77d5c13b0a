// Adapters for tests: random ones for a model, and comparisons of logits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "../support/models.h"
#include "base/random.h"
#include "engine/adapter.h"

namespace hone::testing_adapters {

using formats::Adapter;
using formats::AdapterKind;
using formats::AdapterWeight;

inline std::string golden_adapter(const std::string& name) {
  return std::string(HONE_SOURCE_DIR) + "/tests/golden/adapters/" + name;
}

// A path of this process in the folder for temporary files, removed at the end.
class Scratch {
 public:
  explicit Scratch(const std::string& name)
      : path_((std::filesystem::temp_directory_path() /
               fmt::format("hone_adapters_{}_{}", getpid(), name))
                  .string()) {
    remove();
  }
  ~Scratch() { remove(); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  void remove() const {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path_;
};

// Both matrices random, the adapter's part about `size` of the weight's.
inline Adapter random_adapter(const engine::ModelSource& model, const std::string& modules,
                              std::int64_t rank, std::uint64_t seed,
                              AdapterKind kind = AdapterKind::kLora, float size = 0.3f) {
  Adapter adapter;
  adapter.kind = kind;
  adapter.architecture = *model.metadata().text("general.architecture");
  adapter.alpha = 1.5 * static_cast<double>(rank);
  const auto names = engine::select_modules(model, modules);
  if (!names) return adapter;
  Random random(seed);
  for (const std::string& name : *names) {
    const auto& shape = model.find(name)->shape;
    const std::int64_t pool = kind == AdapterKind::kPooled ? formats::kPoolColumns : 1;
    AdapterWeight weight{rank, shape[1] / pool, shape[0], {}, {}, {}};
    weight.a.resize(static_cast<std::size_t>(rank * weight.inputs));
    weight.b.resize(static_cast<std::size_t>(weight.outputs * rank));
    const float each = 1 / std::sqrt(static_cast<float>(shape[1]));
    for (float& value : weight.a) value = random.normal() * each;
    for (float& value : weight.b) {
      value = random.normal() * size / std::sqrt(static_cast<float>(rank));
    }
    if (kind == AdapterKind::kDora) {
      weight.magnitude.resize(static_cast<std::size_t>(weight.outputs));
      for (float& value : weight.magnitude) value = 0.5f + random.uniform();
    }
    adapter.weights.emplace(name, std::move(weight));
  }
  return adapter;
}

// scale * B A, (R, K); not of DoRA.
inline std::vector<float> delta_of(const Adapter& adapter, const AdapterWeight& weight) {
  const std::int64_t pool = adapter.kind == AdapterKind::kPooled ? formats::kPoolColumns : 1;
  const std::int64_t columns = weight.inputs * pool;
  std::vector<float> out(static_cast<std::size_t>(weight.outputs * columns));
  for (std::int64_t row = 0; row < weight.outputs; ++row) {
    for (std::int64_t column = 0; column < columns; ++column) {
      double sum = 0;
      for (std::int64_t r = 0; r < weight.rank; ++r) {
        sum += double{weight.b[static_cast<std::size_t>(row * weight.rank + r)]} *
               double{weight.a[static_cast<std::size_t>(r * weight.inputs + column / pool)]};
      }
      out[static_cast<std::size_t>(row * columns + column)] =
          static_cast<float>(sum * adapter.scale(weight.rank));
    }
  }
  return out;
}

inline engine::SessionOptions exact() {
  engine::SessionOptions options;
  options.compile.arithmetic = engine::Arithmetic::kFloat;
  options.compile.lower.cache = kernels::CacheKind::kF32;
  options.compile.verify = true;
  options.threads = 2;
  return options;
}

inline double cosine(std::span<const float> a, std::span<const float> b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * double{b[i]};
    aa += double{a[i]} * double{a[i]};
    bb += double{b[i]} * double{b[i]};
  }
  return ab / std::sqrt(aa * bb);
}

inline double largest_gap(std::span<const float> a, std::span<const float> b) {
  double gap = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    gap = std::max(gap, std::abs(double{a[i]} - double{b[i]}));
  }
  return gap;
}

inline std::vector<float> read_floats(const std::string& path) {
  const auto bytes = read_file(path);
  if (!bytes) return {};
  std::vector<float> out(bytes->size() / sizeof(float));
  std::memcpy(out.data(), bytes->data(), out.size() * sizeof(float));
  return out;
}

}  // namespace hone::testing_adapters
