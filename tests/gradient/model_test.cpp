// Gradients of whole models: against transformers' autograd, and the same whatever is made again,
// however many threads run, whether updates happen inside of the program.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "../support/models.h"
#include "base/file.h"
#include "feedback/gradient.h"
#include "tune/trained.h"
#include "tune/trainer.h"

namespace hone::feedback {
namespace {

using testing_models::golden_folder;
using testing_models::golden_tokens;

const std::string kGolden = std::string(HONE_SOURCE_DIR) + "/tests/golden/gradients/";

engine::SessionOptions exact(int threads) {
  engine::SessionOptions options;
  options.threads = threads;
  options.context = 32;
  options.compile.arithmetic = engine::Arithmetic::kFloat;
  options.compile.verify = true;
  return options;
}

// Loss and gradients of all weights of a small model on its own tokens.
struct Computed {
  double loss = 0;
  std::vector<std::string> names;
  std::vector<std::vector<float>> gradients;
};

Computed compute(const std::string& family, int threads, std::int64_t kept_bytes) {
  Computed out;
  auto session = engine::Session::open(golden_folder(family), exact(threads));
  EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
  if (!session) return out;
  auto trained = tune::prepare(**session, {"full", "all", 4, 8, 1});
  EXPECT_TRUE(trained.ok()) << (trained.ok() ? "" : trained.error().text());
  if (!trained) return out;
  GradientOptions options;
  options.compile = (*session)->options().compile;
  options.trains_output = true;
  options.kept_bytes = kept_bytes;
  for (const tune::TrainedTensor& tensor : trained->tensors) options.trained.push_back(tensor.name);
  out.names = options.trained;
  Gradient gradient(**session, options);
  const auto tokens = golden_tokens(family);
  const std::vector<std::uint8_t> learn(tokens.size(), 1);
  TokenBatch batch;
  batch.add(tokens, learn, 1.0F / static_cast<float>(tokens.size() - 1));
  auto outcome = gradient.run(batch);
  EXPECT_TRUE(outcome.ok()) << (outcome.ok() ? "" : outcome.error().text());
  if (!outcome) return out;
  out.loss = outcome->loss;
  for (const auto& each : outcome->gradients) out.gradients.emplace_back(each.begin(), each.end());
  return out;
}

class GradientOf : public testing::TestWithParam<const char*> {};

TEST_P(GradientOf, EqualsAutograd) {
  const std::string family = GetParam();
  const auto text = read_file(kGolden + family + ".json");
  const auto bytes = read_file(kGolden + family + ".bin");
  ASSERT_TRUE(text.ok() && bytes.ok());
  const auto golden = nlohmann::json::parse(*text, nullptr, false);
  const Computed found = compute(family, 2, INT64_MAX);
  ASSERT_FALSE(found.gradients.empty());
  EXPECT_NEAR(found.loss, golden["loss"].get<double>(), 1e-5);
  std::size_t at = 0;
  for (const auto& tensor : golden["tensors"]) {
    const auto name = tensor["name"].get<std::string>();
    const auto which = std::ranges::find(found.names, name) - found.names.begin();
    ASSERT_LT(which, std::ssize(found.names)) << name;
    const std::vector<float>& gradient = found.gradients[static_cast<std::size_t>(which)];
    const auto count = tensor["count"].get<std::size_t>();
    const auto samples = tensor["samples"].get<std::size_t>();
    ASSERT_EQ(gradient.size(), count) << name;
    double ab = 0, aa = 0, bb = 0, norm = 0;
    for (const float value : gradient) norm += double{value} * double{value};
    for (std::size_t i = 0; i < samples; ++i) {
      float expected = 0;
      std::memcpy(&expected, bytes->data() + (at + i) * sizeof(float), sizeof(float));
      const double a = gradient[i * count / samples];
      ab += a * expected;
      aa += a * a;
      bb += double{expected} * expected;
    }
    at += samples;
    // Two f32 evaluations of sums of some thousand terms.
    EXPECT_NEAR(std::sqrt(norm), tensor["norm"].get<double>(), 1e-4 * tensor["norm"].get<double>())
        << name;
    if (bb > 0) {
      EXPECT_GE(ab / std::sqrt(aa * bb), 0.9999) << name;
    }
  }
}

TEST_P(GradientOf, SameBitsWhateverIsMadeAgain) {
  const Computed all = compute(GetParam(), 2, INT64_MAX);
  for (const std::int64_t kept : {std::int64_t{100'000}, std::int64_t{0}}) {
    const Computed less = compute(GetParam(), 2, kept);
    EXPECT_EQ(less.loss, all.loss);
    EXPECT_EQ(less.gradients, all.gradients) << kept;
  }
}

TEST_P(GradientOf, SameBitsForAnyNumberOfThreads) {
  const Computed one = compute(GetParam(), 1, INT64_MAX);
  for (const int threads : {2, 3}) {
    const Computed more = compute(GetParam(), threads, INT64_MAX);
    EXPECT_EQ(more.loss, one.loss) << threads;
    EXPECT_EQ(more.gradients, one.gradients) << threads;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GradientOf,
                         testing::Values("llama", "gemma3", "qwen2", "qwen3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace hone::feedback
