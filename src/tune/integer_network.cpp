// SPDX-License-Identifier: Apache-2.0
#include "tune/integer_network.h"

#include <algorithm>

#include "base/random.h"
#include "kernels/integer_product.h"
#include "kernels/registry.h"

namespace hone::tune::integer {
namespace {

struct Layer {
  std::size_t rows, depth;     // of the weights
  std::size_t side, channels;  // of the image that is read; side 0: a linear layer
  std::size_t pooled() const { return side / 2 * (side / 2); }
  // Values of an example, after pooling.
  std::size_t width() const { return side == 0 ? rows : pooled() * rows; }
};
constexpr std::array<Layer, kLayers> kShapes = {
    Layer{6, 25, 28, 1}, {16, 150, 14, 6}, {120, 784, 0, 0}, {84, 120, 0, 0}, {10, 84, 0, 0}};
constexpr std::size_t kKernel = 5, kPadding = 2;
constexpr std::size_t kPixels = 784, kClasses = 10;
constexpr std::size_t kRowsAtOnce = 8;
constexpr std::int32_t kMantissaBits = 7;
constexpr std::int32_t kImageExponent = -7;

// Weights start uniform in +-most 2^-k, the bound sqrt(6 / in) of He et al. 2015 (of the last
// layer, which no ReLU follows, sqrt(3 / in)): the largest k with most <= 127.
struct Start {
  std::int32_t k = 0;
  std::int32_t most = 0;
};
Start start_of(const Layer& layer, bool last) {
  const std::int64_t gain = last ? 3 : 6;
  const auto depth = static_cast<std::int64_t>(layer.depth);
  Start start;
  std::int64_t power = 1;  // 4^k
  for (; gain * power * 4 <= 127 * 127 * depth; power *= 4) ++start.k;
  while ((start.most + 1) * (start.most + 1) * depth <= gain * power) ++start.most;
  return start;
}

// The pixels (side * side, channels) under every window, as rows of 2 * pairs.
void spread(const Layer& layer, const std::int8_t* image, std::int16_t* out) {
  const std::size_t stride = 2 * kernels::integer_pairs(layer.depth);
  const auto side = static_cast<std::ptrdiff_t>(layer.side);
  const auto channels = static_cast<std::ptrdiff_t>(layer.channels);
  const auto kernel = static_cast<std::ptrdiff_t>(kKernel);
  for (std::ptrdiff_t at = 0; at < side * side; ++at, out += stride) {
    const std::ptrdiff_t left = at % side - static_cast<std::ptrdiff_t>(kPadding);
    const std::ptrdiff_t first = std::max<std::ptrdiff_t>(0, -left);
    const std::ptrdiff_t end = std::min(kernel, side - left);
    std::fill_n(out, stride, std::int16_t{0});
    for (std::ptrdiff_t k = 0; k < kernel; ++k) {
      const std::ptrdiff_t row = at / side + k - static_cast<std::ptrdiff_t>(kPadding);
      if (row < 0 || row >= side) continue;
      const std::int8_t* from = image + (row * side + left + first) * channels;
      std::int16_t* to = out + (k * kernel + first) * channels;
      for (std::ptrdiff_t i = 0; i < (end - first) * channels; ++i) to[i] = from[i];
    }
  }
}

// The largest of 2 x 2 pixels, and of 0: ReLU and pooling in one, before rounding.
void pool(const Layer& layer, const std::int32_t* sums, std::int32_t* out) {
  const std::size_t maps = layer.rows;
  for (std::size_t y = 0; y < layer.side / 2; ++y) {
    for (std::size_t x = 0; x < layer.side / 2; ++x, out += maps) {
      const std::int32_t* from = sums + (2 * y * layer.side + 2 * x) * maps;
      const std::int32_t* below = from + layer.side * maps;
      for (std::size_t map = 0; map < maps; ++map) {
        const std::int32_t above = std::max(from[map], from[map + maps]);
        const std::int32_t under = std::max(below[map], below[map + maps]);
        out[map] = std::max(std::max(above, under), 0);
      }
    }
  }
}

template <typename T>
std::int64_t bytes_of(const std::vector<T>& values) {
  return static_cast<std::int64_t>(values.size() * sizeof(T));
}

}  // namespace

IntegerLeNet::IntegerLeNet(const IntegerOptions& options) : options_(options) {
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    const Layer& shape = kShapes[layer];
    Random random(options.seed, 300 + layer);
    weights_[layer].resize(shape.rows * shape.depth);
    const Start start = start_of(shape, layer + 1 == kLayers);
    const auto width = static_cast<std::uint32_t>(2 * start.most + 1);
    for (std::int8_t& m : weights_[layer]) {
      m = static_cast<std::int8_t>(static_cast<std::int32_t>(random.below(width)) - start.most);
    }
    exponents_[layer] = -start.k;
    if (layer >= options.cut) gradients_[layer].resize(weights_[layer].size());
  }
  probe_.resize(kPixels);
}

std::int64_t IntegerLeNet::parameters() const {
  std::int64_t count = 0;
  for (const auto& layer : weights_) count += bytes_of(layer);
  return count;
}

std::int64_t IntegerLeNet::bytes() const {
  std::int64_t sum = parameters() + bytes_of(packed_) + bytes_of(patches_) + bytes_of(sums_) +
                     bytes_of(wide_) + bytes_of(probe_) + bytes_of(error_) + bytes_of(error_below_);
  for (const auto& layer : values_) sum += bytes_of(layer);
  for (const auto& layer : gradients_) sum += bytes_of(layer);
  return sum;
}

Probe IntegerLeNet::probe(std::size_t layer, std::size_t row) const {
  return {options_.seed, step_, static_cast<std::uint32_t>(layer << 16 | row), options_.largest,
          options_.zeros};
}

// theta + sign z of the head, as the product wants it: theta itself is not written.
void IntegerLeNet::pack(std::size_t layer, std::int32_t sign) {
  const Layer& shape = kShapes[layer];
  const std::size_t pairs = kernels::integer_pairs(shape.depth);
  if (layer >= options_.cut) sign = 0;
  packed_.resize(std::max(packed_.size(), kernels::integer_words(shape.rows, shape.depth)));
  std::array<std::int16_t, kPixels + 1> row_values{};
  for (std::size_t row = 0; row < shape.rows; ++row) {
    const std::int8_t* theta = weights_[layer].data() + row * shape.depth;
    if (sign != 0) fill_probe(probe(layer, row), std::span(probe_).first(shape.depth));
    for (std::size_t i = 0; i < shape.depth; ++i) {
      row_values[i] = sign == 0 ? theta[i] : moved(theta[i], probe_[i], sign);
    }
    row_values[shape.depth] = 0;
    std::int32_t* to = packed_.data() + kernels::integer_place(row, 0, pairs);
    for (std::size_t pair = 0; pair < pairs; ++pair) {
      to[pair * kernels::kIntegerPanel] =
          kernels::integer_pair(row_values[2 * pair], row_values[2 * pair + 1]);
    }
  }
}

void IntegerLeNet::convolve(std::size_t layer, std::span<const std::int8_t> in,
                            std::size_t images) {
  const Layer& shape = kShapes[layer];
  const std::size_t pixels = shape.side * shape.side;
  const std::size_t pairs = kernels::integer_pairs(shape.depth);
  patches_.resize(std::max(patches_.size(), pixels * 2 * pairs));
  sums_.resize(std::max(sums_.size(), pixels * shape.rows));
  wide_.resize(std::max(wide_.size(), images * shape.width()));
  for (std::size_t image = 0; image < images; ++image) {
    spread(shape, in.data() + image * pixels * shape.channels, patches_.data());
    kernels::kernels().integer_product(
        {patches_.data(), packed_.data(), pixels, shape.rows, pairs, sums_.data()});
    pool(shape, sums_.data(), wide_.data() + image * shape.width());
  }
}

void IntegerLeNet::multiply(std::size_t layer, std::span<const std::int8_t> in, std::size_t rows) {
  const Layer& shape = kShapes[layer];
  const std::size_t pairs = kernels::integer_pairs(shape.depth);  // depths are even
  patches_.resize(std::max(patches_.size(), kRowsAtOnce * 2 * pairs));
  wide_.resize(std::max(wide_.size(), rows * shape.rows));
  for (std::size_t first = 0; first < rows; first += kRowsAtOnce) {
    const std::size_t count = std::min(kRowsAtOnce, rows - first);
    const auto from = in.subspan(first * shape.depth, count * shape.depth);
    std::copy(from.begin(), from.end(), patches_.begin());
    kernels::kernels().integer_product({patches_.data(), packed_.data(), count, shape.rows, pairs,
                                        wide_.data() + first * shape.rows});
  }
}

// ReLU, and rounding to seven bits by the largest.
void IntegerLeNet::finish(std::size_t layer, bool cut_below_zero) {
  const auto wide = std::span(wide_).first(values_[layer].size());
  if (cut_below_zero) {
    for (std::int32_t& value : wide) value = std::max(value, 0);
  }
  const std::int32_t shift = std::max(0, bits_of_largest(wide) - kMantissaBits);
  round_all(wide, shift, values_[layer]);
  const std::int32_t below = layer == 0 ? kImageExponent : value_exponents_[layer - 1];
  value_exponents_[layer] = below + exponents_[layer] + shift;
}

void IntegerLeNet::forward(std::span<const std::int8_t> images, std::int32_t sign) {
  const std::size_t count = images.size() / kPixels;
  std::span<const std::int8_t> in = images;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    values_[layer].resize(count * kShapes[layer].width());
    pack(layer, sign);
    if (kShapes[layer].side != 0) {
      convolve(layer, in, count);
    } else {
      multiply(layer, in, count);
    }
    finish(layer, layer + 1 < kLayers);
    in = values_[layer];
  }
}

// Adds the tail's gradients of the pass that has just run.
void IntegerLeNet::backward(std::span<const std::int32_t> targets) {
  const std::size_t rows = targets.size();
  error_.resize(rows * kClasses);
  loss_gradient(values_.back(), value_exponents_.back(), kClasses, targets, error_);
  for (std::size_t layer = kLayers; layer-- > options_.cut;) {
    const Layer& shape = kShapes[layer];
    const std::int8_t* below = values_[layer - 1].data();  // the tail is linear layers
    for (std::size_t n = 0; n < rows; ++n) {
      for (std::size_t r = 0; r < shape.rows; ++r) {
        const std::int32_t error = error_[n * shape.rows + r];
        if (error == 0) continue;
        std::int32_t* to = gradients_[layer].data() + r * shape.depth;
        const std::int8_t* x = below + n * shape.depth;
        for (std::size_t i = 0; i < shape.depth; ++i) to[i] += error * x[i];
      }
    }
    if (layer == options_.cut) break;
    std::vector<std::int32_t>& wide = wide_;
    wide.assign(std::max(wide.size(), rows * shape.depth), 0);
    for (std::size_t n = 0; n < rows; ++n) {
      std::int32_t* to = wide.data() + n * shape.depth;
      for (std::size_t r = 0; r < shape.rows; ++r) {
        const std::int32_t error = error_[n * shape.rows + r];
        const std::int8_t* w = weights_[layer].data() + r * shape.depth;
        for (std::size_t i = 0; i < shape.depth; ++i) to[i] += error * w[i];
      }
      const std::int8_t* x = below + n * shape.depth;
      for (std::size_t i = 0; i < shape.depth; ++i) to[i] = x[i] > 0 ? to[i] : 0;
    }
    const auto errors = std::span<const std::int32_t>(wide).first(rows * shape.depth);
    error_below_.resize(errors.size());
    round_all(errors, std::max(0, bits_of_largest(errors) - kMantissaBits), error_below_);
    error_.swap(error_below_);
  }
}

void IntegerLeNet::step_tail() {
  for (std::size_t layer = options_.cut; layer < kLayers; ++layer) {
    auto& gradient = gradients_[layer];
    const std::int32_t shift = std::max(0, bits_of_largest(gradient) - options_.tail_bits);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const auto step = static_cast<std::int8_t>(rounded(gradient[i], shift));
      subtract_all(std::span(weights_[layer]).subspan(i, 1), {&step, 1});
    }
    std::fill(gradient.begin(), gradient.end(), 0);
  }
}

std::int32_t IntegerLeNet::step(std::span<const std::int8_t> images,
                                std::span<const std::int32_t> targets) {
  ++step_;
  std::array<std::int64_t, 2> losses{};
  for (const std::size_t pass : {0, 1}) {
    forward(images, pass == 0 ? 1 : -1);
    losses[pass] = loss_of(values_.back(), value_exponents_.back(), kClasses, targets);
    if (options_.cut < kLayers) backward(targets);
  }
  const std::int32_t sign = losses[0] > losses[1] ? 1 : losses[0] < losses[1] ? -1 : 0;
  for (std::size_t layer = 0; layer < options_.cut && sign != 0; ++layer) {
    const std::size_t depth = kShapes[layer].depth;
    for (std::size_t row = 0; row < kShapes[layer].rows; ++row) {
      const auto z = std::span(probe_).first(depth);
      fill_probe(probe(layer, row), z);
      step_against(std::span(weights_[layer]).subspan(row * depth, depth), z, sign,
                   options_.largest, options_.bits);
    }
  }
  step_tail();
  return sign;
}

std::int64_t IntegerLeNet::right(std::span<const std::int8_t> images,
                                 std::span<const std::int32_t> targets) {
  forward(images, 0);
  std::int64_t count = 0;
  for (std::size_t n = 0; n < targets.size(); ++n) {
    const auto row = std::span(values_.back()).subspan(n * kClasses, kClasses);
    count += std::max_element(row.begin(), row.end()) - row.begin() == targets[n] ? 1 : 0;
  }
  return count;
}

std::int64_t IntegerLeNet::loss(std::span<const std::int8_t> images,
                                std::span<const std::int32_t> targets) {
  forward(images, 0);
  return loss_of(values_.back(), value_exponents_.back(), kClasses, targets);
}

}  // namespace hone::tune::integer
