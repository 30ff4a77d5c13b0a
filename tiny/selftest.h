// The self-test of hone.cpp, its only includer, on a random model that fits on a page.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace {

void expect(bool good, const std::string& what) {
  if (!good) fail("self-test: ", what);
  std::printf("ok: %s\n", what.c_str());
}

Model random_model(bool tied, std::mt19937_64& random) {
  Model model(Config{19, 24, 40, 2, {4, 2, 6}, 100, real(1e-3), tied});
  std::normal_distribution<double> normal;
  for (Parameter& p : model.parameters()) {
    const bool norm = p.rows == 1;
    const double spread = norm ? 0.2 : 1 / std::sqrt(p.cols);
    for (real& w : p.array->data) w = static_cast<real>((norm ? 1 : 0) + spread * normal(random));
  }
  return model;
}

// Along a random unit direction u of one parameter, (loss(w + h u) - loss(w - h u)) / 2h must equal
// gradient . u. The difference has a rounding error of about epsilon * loss / h, and an error of
// the order of h^2 from the curvature's change; h balances the two.
void test_gradient(bool tied, std::mt19937_64& random, std::span<const int> tokens) {
  Model model = random_model(tied, random);
  Model gradient(model.config);
  loss_and_gradient(model, tokens, gradient);
  const double h = std::cbrt(static_cast<double>(std::numeric_limits<real>::epsilon()));
  std::normal_distribution<double> normal;
  const auto gradients = gradient.parameters(), weights = model.parameters();
  double worst = 0;
  for (size_t p = 0; p < weights.size(); ++p) {
    const auto& g = gradients[p].array->data;
    auto& w = weights[p].array->data;
    const auto saved = w;
    std::vector<double> u(w.size());
    for (double& value : u) value = normal(random);
    const double norm = std::sqrt(std::inner_product(u.begin(), u.end(), u.begin(), 0.0));
    double expected = 0;
    for (size_t i = 0; i < u.size(); ++i) expected += (u[i] /= norm) * g[i];
    const auto shifted_loss = [&](double by) {
      for (size_t i = 0; i < u.size(); ++i) w[i] = static_cast<real>(saved[i] + by * u[i]);
      return loss_of(model, tokens);
    };
    const double found = (shifted_loss(h) - shifted_loss(-h)) / (2 * h);
    w = saved;
    worst = std::max(worst, std::abs(found - expected));
    if (!(worst <= 40 * h * h)) {
      fail("the derivative along ", weights[p].name, " is ", found, ", not ", expected);
    }
  }
  std::printf("largest error %.1e, allowed %.1e\n", worst, 40 * h * h);
  expect(true, tied ? "gradients, tied" : "gradients, untied");
}

void test_cache(std::mt19937_64& random, std::span<const int> tokens) {
  const Model model = random_model(false, random);
  const Array expected = forward(model, tokens);  // (T, V)
  Cache cache(model.config);
  Trace trace;
  real difference = 0;
  for (int t = 0; t < expected.rows; ++t) {
    const Array found = forward(model, tokens.subspan(t, 1), cache, trace);  // (1, V)
    for (int v = 0; v < expected.cols; ++v) {
      difference = std::max(difference, std::abs(found[0][v] - expected[t][v]));
    }
  }
  // The same sums in the same order: equal bits.
  expect(difference == 0, "token by token gives what the whole sequence gives");
}

void test_training(std::mt19937_64& random, std::span<const int> tokens) {
  Model model = random_model(true, random);
  Model gradient(model.config);
  AdamW optimizer(model.config);
  optimizer.rate = real(0.01);
  const double before = loss_of(model, tokens);
  for (int step = 0; step < 20; ++step) {
    loss_and_gradient(model, tokens, gradient);
    optimizer.step(model, gradient);
  }
  const double after = loss_of(model, tokens);
  std::printf("loss %.4f, after 20 steps %.4f\n", before, after);
  expect(after < 0.2 * before, "20 steps learn one sequence by heart");
}

// One block: scale 2, offset 1 (Q4_1 alone), then bytes 0x5C: numbers 12 (low half) and 5 (high).
void test_format(const std::string& name, uint32_t type, std::vector<uint8_t> block, real low,
                 real high) {
  block.resize(block.size() + 32, 0x5C);
  std::array<real, 32> out{};
  Reader reader{block};
  decode_block(type, reader, out);
  expect(out[0] == low && out[16] == high, name);
}

void self_test() {
  std::mt19937_64 random(1);
  const std::vector<int> tokens{3, 14, 1, 5, 9, 2, 6, 5, 3, 18, 0};
  test_format("F16", 1, {0x00, 0xC0}, -2, 0);
  test_format("Q4_0", 2, {0x00, 0x40}, 8, -6);
  test_format("Q4_1", 3, {0x00, 0x40, 0x00, 0x3C}, 25, 11);
  test_format("Q8_0", 8, {0x00, 0x40}, 184, 184);
  test_cache(random, tokens);
  test_gradient(false, random, tokens);
  test_gradient(true, random, tokens);
  test_training(random, tokens);
}

}  // namespace
