// Tuning the scales alone: gradients and directions agree, no bit of a weight moves, and the file
// that is written is the model that was trained, but for f16.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "../support/models.h"
#include "base/random.h"
#include "base/sha256.h"
#include "feedback/forward_gradient.h"
#include "quant/scales.h"
#include "tune/trained.h"

namespace hone {
namespace {

using feedback::ForwardGradient;
using feedback::ForwardOptions;
using testing_models::golden_tokens;
using Vectors = std::vector<std::vector<float>>;

struct Trial {
  std::unique_ptr<engine::Session> session;
  tune::Trained trained;
  feedback::GradientOptions options;
  feedback::TokenBatch batch;

  static std::unique_ptr<engine::Session> open(const std::string& path,
                                               engine::Arithmetic arithmetic) {
    engine::SessionOptions how;
    how.threads = 2;
    how.context = 32;
    how.compile.arithmetic = arithmetic;
    how.compile.verify = true;
    auto opened = engine::Session::open(path, how);
    EXPECT_TRUE(opened.ok()) << (opened.ok() ? "" : opened.error().text());
    return opened ? *std::move(opened) : nullptr;
  }

  Trial(DType dtype, engine::Arithmetic arithmetic, const std::string& view = "tied",
        float start = 0.1F) {
    session = open(testing_models::quantized_copy("llama", dtype), arithmetic);
    tune::MethodOptions method;
    method.method = "scale";
    method.view = view;
    auto prepared = tune::prepare(*session, method);
    EXPECT_TRUE(prepared.ok()) << (prepared.ok() ? "" : prepared.error().text());
    trained = *std::move(prepared);
    options.compile = session->options().compile;
    options.adapt = trained.adapt;
    Random random(5);
    for (const tune::TrainedTensor& tensor : trained.tensors) {
      for (float& value : tensor.values) value += start * random.normal();
      options.trained.push_back(tensor.name);
    }
    const auto tokens = golden_tokens("llama");
    const std::vector<std::uint8_t> learn(tokens.size(), 1);
    batch.add(tokens, learn, 1.0F / static_cast<float>(tokens.size() - 1));
  }

  Vectors gradients() const {
    feedback::Gradient gradient(*session, options);
    auto outcome = gradient.run(batch);
    EXPECT_TRUE(outcome.ok()) << (outcome.ok() ? "" : outcome.error().text());
    Vectors out;
    if (!outcome) return out;
    for (const auto& each : outcome->gradients) out.emplace_back(each.begin(), each.end());
    return out;
  }

  std::unique_ptr<ForwardGradient> forward(const ForwardOptions& how) const {
    std::vector<feedback::Perturbed> tensors;
    for (const auto& tensor : trained.tensors) {
      tensors.push_back({tensor.name, tensor.shape, tensor.values});
    }
    auto made = ForwardGradient::create(*session, options, tensors, how,
                                        std::make_shared<runtime::Workspace>());
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().text());
    return *std::move(made);
  }

  double loss(engine::Session& of, bool factors) const {
    feedback::GradientOptions how = options;
    how.forward_only = true;
    if (!factors) {
      how.adapt = nullptr;
      how.trained.clear();
    }
    feedback::Gradient gradient(of, how);
    auto outcome = gradient.run(batch);
    EXPECT_TRUE(outcome.ok()) << (outcome.ok() ? "" : outcome.error().text());
    return outcome ? outcome->loss : 0;
  }
};

double dot(const Vectors& a, const Vectors& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < a[i].size(); ++j) sum += double{a[i][j]} * double{b[i][j]};
  }
  return sum;
}

Vectors direction(const ForwardGradient& forward, std::size_t tensors, std::size_t which,
                  std::size_t count) {
  std::vector<double> one(count, 0.0);
  one[which] = 1;
  Vectors out(tensors);
  forward.expand(std::vector<feedback::EstimateTerm>{{0, one}}, out);
  return out;
}

TEST(TuneScales, TangentIsTheGradientTimesTheDirection) {
  for (const std::string view : {"tied", "scale", "minimum"}) {
    for (const auto arithmetic : {engine::Arithmetic::kFloat, engine::Arithmetic::kInteger}) {
      const Trial trial(DType::kQ4_1, arithmetic, view);
      const auto gradients = trial.gradients();
      ForwardOptions how;
      how.directions = 6;
      const auto forward = trial.forward(how);
      const auto estimate = forward->run(std::span(&trial.batch, 1), 0);
      ASSERT_TRUE(estimate.ok()) << estimate.error().text();
      const double size = std::sqrt(dot(gradients, gradients));
      ASSERT_GT(size, 0);
      // In f32 two computations of one number; in int8 the tangent's rows are rounded to codes on
      // their way, each by up to 1/254 of a block's largest.
      const double off = arithmetic == engine::Arithmetic::kFloat ? 2e-4 : 2e-2;
      for (std::size_t k = 0; k < 6; ++k) {
        EXPECT_NEAR(estimate->derivatives[k],
                    dot(gradients, direction(*forward, gradients.size(), k, 6)), off * size)
            << view << ", direction " << k;
      }
    }
  }
}

// At the model itself F counts d * code + m in one view, and either part in the others.
TEST(TuneScales, ViewsAddUp) {
  const auto of = [](const char* view) {
    return Trial(DType::kQ4_1, engine::Arithmetic::kFloat, view, 0.0F).gradients();
  };
  const Vectors tied = of("tied");
  const Vectors scale = of("scale");
  const Vectors minimum = of("minimum");
  const double size = std::sqrt(dot(tied, tied) + dot(scale, scale));
  for (std::size_t i = 0; i < tied.size(); ++i) {
    for (std::size_t j = 0; j < tied[i].size(); ++j) {
      EXPECT_NEAR(tied[i][j], scale[i][j] + minimum[i][j], 1e-5 * size);
    }
  }
}

std::string hash_of(const engine::Session& session, bool codes_alone) {
  Sha256 hash;
  for (const formats::TensorRecord& tensor : session.source().tensors()) {
    std::vector<std::byte> bytes(tensor.data.begin(), tensor.data.end());
    if (codes_alone) quant::clear_scales(tensor.dtype, bytes);
    hash.add(bytes);
  }
  return hash.finish();
}

TEST(TuneScales, PerturbingChangesNoBitOfAWeight) {
  const Trial trial(DType::kQ4_1, engine::Arithmetic::kInteger);
  const std::string name = trial.trained.weights.front();
  ir::Type type = *trial.session->weights().find(name);
  type.layout = ir::Layout::kRows16;
  const auto packed = trial.session->weights().get(name, type);
  ASSERT_TRUE(packed.ok());
  const std::vector<std::byte> bits((*packed)->bytes.begin(), (*packed)->bytes.end());
  const std::vector<float> factors(trial.trained.tensors[0].values.begin(),
                                   trial.trained.tensors[0].values.end());
  const std::string file = hash_of(*trial.session, false);
  for (const auto probe : {feedback::Probe::kTangent, feedback::Probe::kPair}) {
    ForwardOptions how;
    how.probe = probe;
    how.epsilon = 0.02;
    ASSERT_TRUE(trial.forward(how)->run(std::span(&trial.batch, 1), 0).ok());
  }
  EXPECT_TRUE(std::ranges::equal((*packed)->bytes, bits));
  EXPECT_TRUE(std::ranges::equal(trial.trained.tensors[0].values, factors));
  EXPECT_EQ(hash_of(*trial.session, false), file);
}

TEST(TuneScales, TheFileIsTheModelButForF16) {
  for (const DType dtype : {DType::kQ4_1, DType::kQ8_0, DType::kQ5_0}) {
    for (const std::string view : {"tied", "scale", "minimum"}) {
      if (view != "tied" && dtype != DType::kQ4_1) continue;
      const Trial trial(dtype, engine::Arithmetic::kFloat, view, 0.3F);
      const std::string path =
          (std::filesystem::temp_directory_path() / fmt::format("hone_scales_{}.gguf", getpid()))
              .string();
      ASSERT_TRUE(tune::write_model(trial.trained, *trial.session, path).ok());
      const auto written = Trial::open(path, engine::Arithmetic::kFloat);
      ASSERT_NE(written, nullptr);
      EXPECT_EQ(std::filesystem::file_size(path),
                std::filesystem::file_size(testing_models::quantized_copy("llama", dtype)));
      EXPECT_EQ(hash_of(*written, true), hash_of(*trial.session, true)) << "a code changed";
      EXPECT_NE(hash_of(*written, false), hash_of(*trial.session, false));
      const double plain = trial.loss(*trial.session, false);
      const double beside = trial.loss(*trial.session, true);
      const double after = trial.loss(*written, false);
      EXPECT_GT(std::abs(beside - plain), 1e-3) << dtype_name(dtype) << ", " << view;
      // Each f16 number is off by up to 2^-11 of itself, at random (0.4 of that on average): five
      // sigma of the loss. Scale and minimum round apart, so that their own gradients count, which
      // cancel in the tied one.
      double squares = 0;
      for (const std::string part : {"scale", "minimum"}) {
        const bool has_both = dtype == DType::kQ4_1;
        if (!has_both && part == "minimum") continue;
        const Vectors gradients =
            Trial(dtype, engine::Arithmetic::kFloat, has_both ? part : "tied", 0.3F).gradients();
        squares += dot(gradients, gradients);
      }
      EXPECT_NEAR(after, beside, 2 * 0x1p-11 * std::sqrt(squares) + 1e-5)
          << dtype_name(dtype) << ", " << view;
      // Shown in the session itself, the same; then back.
      ASSERT_TRUE(tune::show_scales(trial.trained, *trial.session, true).ok());
      EXPECT_NEAR(trial.loss(*trial.session, false), after, 1e-6);
      ASSERT_TRUE(tune::show_scales(trial.trained, *trial.session, false).ok());
      EXPECT_EQ(trial.loss(*trial.session, false), plain);
      std::filesystem::remove(path);
    }
  }
}

TEST(TuneScales, RefusesWhatHasNoScales) {
  const auto plain =
      Trial::open(testing_models::golden_folder("llama"), engine::Arithmetic::kFloat);
  tune::MethodOptions method;
  method.method = "scale";
  const auto none = tune::prepare(*plain, method);
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().expected.find("block-quantized"), std::string::npos);
  const auto centred = Trial::open(testing_models::quantized_copy("llama", DType::kQ8_0),
                                   engine::Arithmetic::kFloat);
  method.view = "minimum";
  EXPECT_FALSE(tune::prepare(*centred, method).ok());
  method.view = "sideways";
  EXPECT_FALSE(tune::prepare(*centred, method).ok());
}

}  // namespace
}  // namespace hone
