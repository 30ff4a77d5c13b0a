// The training loop: loss curves of PyTorch and PEFT, the same bits after resuming, however the
// work is split in memory, and what is planned against what the system measured.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "../support/models.h"
#include "base/file.h"
#include "engine/adapter.h"
#include "tune/trained.h"
#include "tune/trainer.h"

namespace hone::tune {
namespace {

using testing_models::golden_folder;
using testing_models::quantized_copy;

constexpr int kExamples = 6;
constexpr int kLength = 20;
constexpr int kVocabulary = 160;

// tests/golden/curves/make.py: example
std::vector<Example> golden_examples() {
  std::vector<Example> examples;
  for (int index = 0; index < kExamples; ++index) {
    Example example;
    for (int i = 0; i < kLength; ++i) {
      example.tokens.push_back((index * 37 + i * i * 11 + i * 5) % kVocabulary);
      example.learn.push_back(i > 0 ? 1 : 0);
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

struct Setup {
  std::unique_ptr<engine::Session> session;
  std::unique_ptr<Trained> trained;
  std::vector<Example> examples = golden_examples();
  std::unique_ptr<Trainer> trainer;
};

TrainerOptions options_of(const char* rule, double rate) {
  TrainerOptions options;
  options.rule = optim::find_rule(rule);
  options.settings = optim::Settings(options.rule->defaults);
  options.schedule.learning_rate = rate;
  options.schedule.steps = 20;
  options.clip = 0;
  options.batch = kExamples;
  return options;
}

// `fixed`: the layer whose tensors do not move; -1: none.
Setup setup(const std::string& model, const MethodOptions& method, TrainerOptions options,
            engine::Arithmetic arithmetic = engine::Arithmetic::kFloat, int threads = 2,
            std::int64_t fixed = -1) {
  Setup out;
  engine::SessionOptions how;
  how.threads = threads;
  how.context = 32;
  how.compile.arithmetic = arithmetic;
  how.compile.verify = true;
  auto session = engine::Session::open(model, how);
  EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
  if (!session) return out;
  out.session = *std::move(session);
  auto trained = prepare(*out.session, method);
  EXPECT_TRUE(trained.ok()) << (trained.ok() ? "" : trained.error().text());
  if (!trained) return out;
  out.trained = std::make_unique<Trained>(*std::move(trained));
  for (TrainedTensor& tensor : out.trained->tensors) {
    if (fixed >= 0) tensor.fixed = engine::layer_of(tensor.name) == fixed;
  }
  options.compile = out.session->options().compile;
  auto trainer = Trainer::create(*out.session, *out.trained, out.examples, options);
  EXPECT_TRUE(trainer.ok()) << (trainer.ok() ? "" : trainer.error().text());
  if (trainer) out.trainer = *std::move(trainer);
  return out;
}

std::vector<double> losses(Trainer& trainer, int steps) {
  std::vector<double> out;
  for (int i = 0; i < steps; ++i) {
    auto report = trainer.step();
    EXPECT_TRUE(report.ok()) << (report.ok() ? "" : report.error().text());
    if (!report) break;
    out.push_back(report->loss);
  }
  return out;
}

void expect_curve(const std::string& name, const std::vector<double>& found) {
  const auto text = read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/curves/curves.json");
  ASSERT_TRUE(text.ok());
  const auto expected =
      nlohmann::json::parse(*text, nullptr, false)[name].get<std::vector<double>>();
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 1e-3) << name << ", step " << i + 1;
  }
  EXPECT_LT(found.back(), found.front() - 0.1);
}

TEST(Curves, AdamWFollowsPyTorch) {
  auto made = setup(golden_folder("llama"), {"full", "all", 4, 8, 1}, options_of("adamw", 2e-3));
  ASSERT_NE(made.trainer, nullptr);
  expect_curve("adamw", losses(*made.trainer, 20));
}

// Rounded products keep the curve within what they round: bf16 by 2^-9 of every factor, codes by
// about a hundredth of a tensor's size; over 20 steps the differences of the steps add up.
TEST(Curves, RoundedProductsStayNearPyTorch) {
  const auto text = read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/curves/curves.json");
  ASSERT_TRUE(text.ok());
  const auto expected =
      nlohmann::json::parse(*text, nullptr, false)["adamw"].get<std::vector<double>>();
  for (const auto& [rounding, bound] :
       {std::pair("bf16", 0.02), std::pair("quantize_training", 0.1)}) {
    TrainerOptions options = options_of("adamw", 2e-3);
    options.rounding = rounding;
    std::vector<std::vector<double>> curves;
    for (const bool inside : {false, true}) {
      options.update_inside = inside;
      auto made = setup(golden_folder("llama"), {"full", "all", 4, 8, 1}, options);
      ASSERT_NE(made.trainer, nullptr);
      curves.push_back(losses(*made.trainer, 20));
    }
    EXPECT_EQ(curves[0], curves[1]) << rounding << ": updates read what they should not";
    double most = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      most = std::max(most, std::abs(curves[0][i] - expected[i]));
    }
    EXPECT_LT(most, bound) << rounding;
    EXPECT_GT(most, 1e-5) << rounding << " rounds nothing";
  }
}

TEST(Curves, LionFollowsItsPaper) {
  auto made = setup(golden_folder("llama"), {"full", "all", 4, 8, 1}, options_of("lion", 5e-4));
  ASSERT_NE(made.trainer, nullptr);
  expect_curve("lion", losses(*made.trainer, 20));
}

// tests/golden/curves/make.py: first_a
void set_first_a(Trained& trained) {
  for (TrainedTensor& tensor : trained.tensors) {
    if (!tensor.name.ends_with(".lora_a")) continue;
    const std::int64_t columns = tensor.shape[1];
    for (std::int64_t i = 0; i < tensor.shape[0]; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        const double cell = static_cast<double>((i * 7919 + j * 104729) % 1000);
        tensor.values[static_cast<std::size_t>(i * columns + j)] =
            static_cast<float>((cell / 500 - 1) / std::sqrt(static_cast<double>(columns)));
      }
    }
  }
}

TEST(Curves, LoraFollowsPeft) {
  auto made = setup(golden_folder("llama"), {"lora", "all", 4, 8, 1}, options_of("adamw", 1e-2));
  ASSERT_NE(made.trainer, nullptr);
  set_first_a(*made.trained);
  expect_curve("lora", losses(*made.trainer, 20));
}

TEST(Curves, DoraFollowsPeft) {
  auto made = setup(golden_folder("llama"), {"dora", "all", 4, 8, 1}, options_of("adamw", 1e-2));
  ASSERT_NE(made.trainer, nullptr);
  set_first_a(*made.trained);
  expect_curve("dora", losses(*made.trainer, 20));
}

// What was trained, written and read again, gives the loss that training saw.
TEST(Adapters, ScoreWhatTheTrainerScored) {
  for (const char* method : {"lora", "pooled", "dora"}) {
    const std::string model = quantized_copy("llama", DType::kQ4_1);
    auto made = setup(model, {method, "all", 4, 8, 1}, options_of("adamw", 1e-2));
    ASSERT_NE(made.trainer, nullptr);
    losses(*made.trainer, 8);
    const auto expected = made.trainer->evaluate(made.examples);
    ASSERT_TRUE(expected.ok());
    const auto& tokens = made.examples[0].tokens;
    const std::string path =
        (std::filesystem::temp_directory_path() / "hone_trainer_adapter.gguf").string();
    ASSERT_TRUE(engine::write_adapter(path, adapter_of(*made.trained, *made.session),
                                      made.session->source())
                    .ok());
    engine::SessionOptions how;
    how.threads = 2;
    how.compile.arithmetic = engine::Arithmetic::kFloat;
    how.compile.lower.cache = kernels::CacheKind::kF32;
    auto session = engine::Session::open(model, how);
    ASSERT_TRUE(session.ok());
    const auto adapter = engine::read_adapter(path, (*session)->source());
    ASSERT_TRUE(adapter.ok()) << adapter.error().text();
    ASSERT_TRUE((*session)->attach(*adapter).ok());
    double loss = 0;
    for (const Example& example : made.examples) {
      const auto logits = testing_models::all_logits(**session, example.tokens);
      ASSERT_TRUE(logits.ok()) << logits.error().text();
      for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
        const float* row = logits->data() + i * kVocabulary;
        double sum = 0;
        for (int v = 0; v < kVocabulary; ++v) sum += std::exp(static_cast<double>(row[v]));
        loss += std::log(sum) - row[example.tokens[i + 1]];
      }
    }
    loss /= kExamples * (kLength - 1);
    EXPECT_NEAR(loss, *expected, 1e-4) << method;
    std::filesystem::remove(path);
  }
}

TEST(Trainer, DropoutIsDrawnBySeedAndStep) {
  const MethodOptions method{"lora", "all", 4, 8, 1, 0.2};
  auto one = setup(golden_folder("llama"), method, options_of("adamw", 1e-3));
  auto two = setup(golden_folder("llama"), method, options_of("adamw", 1e-3));
  TrainerOptions other = options_of("adamw", 1e-3);
  other.seed = 2;
  auto three = setup(golden_folder("llama"), method, other);
  losses(*one.trainer, 4);
  losses(*two.trainer, 4);
  losses(*three.trainer, 4);
  EXPECT_EQ(one.trainer->hash(), two.trainer->hash());
  EXPECT_NE(one.trainer->hash(), three.trainer->hash());
}

class EveryRule : public testing::TestWithParam<const optim::UpdateRule*> {};

// A run that stops after 5 steps and goes on from its state equals one that does not stop.
TEST_P(EveryRule, ResumesToTheSameBits) {
  const std::string model = quantized_copy("llama", DType::kQ4_1);
  ASSERT_FALSE(model.empty());
  const MethodOptions method{"lora", "all", 4, 8, 1};
  TrainerOptions options = options_of(GetParam()->name.data(), GetParam()->learning_rate);
  options.batch = 4;
  options.clip = 1;
  auto whole = setup(model, method, options, engine::Arithmetic::kInteger);
  ASSERT_NE(whole.trainer, nullptr);
  losses(*whole.trainer, 9);
  auto first = setup(model, method, options, engine::Arithmetic::kInteger);
  losses(*first.trainer, 5);
  const std::string path =
      (std::filesystem::temp_directory_path() / "hone_resume_test.hone").string();
  ASSERT_TRUE(write_checkpoint(path, 5, "{}", first.trainer->state()).ok());
  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().text();
  auto second = setup(model, method, options, engine::Arithmetic::kInteger);
  ASSERT_TRUE(second.trainer->restore(*checkpoint).ok());
  losses(*second.trainer, 4);
  EXPECT_EQ(second.trainer->hash(), whole.trainer->hash());
  std::filesystem::remove(path);
}

TEST_P(EveryRule, SameBitsForAnyNumberOfThreads) {
  const std::string model = quantized_copy("llama", DType::kQ4_1);
  const MethodOptions method{"lora", "all", 4, 8, 1};
  TrainerOptions options = options_of(GetParam()->name.data(), GetParam()->learning_rate);
  std::string hash;
  for (const int threads : {1, 2, 3}) {
    auto made = setup(model, method, options, engine::Arithmetic::kInteger, threads);
    ASSERT_NE(made.trainer, nullptr);
    losses(*made.trainer, 3);
    if (hash.empty()) hash = made.trainer->hash();
    EXPECT_EQ(made.trainer->hash(), hash) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryRule,
                         testing::ValuesIn(optim::all_rules().begin(), optim::all_rules().end()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST(Trainer, UpdatesInsideOfTheProgramGiveTheSameBits) {
  for (const char* method : {"full", "lora"}) {
    const MethodOptions how{method, "all", 4, 8, 1};
    TrainerOptions options = options_of("adamw", 1e-3);
    auto outside = setup(golden_folder("llama"), how, options);
    options.update_inside = true;
    auto inside = setup(golden_folder("llama"), how, options);
    ASSERT_NE(inside.trainer, nullptr);
    losses(*outside.trainer, 4);
    losses(*inside.trainer, 4);
    EXPECT_EQ(inside.trainer->hash(), outside.trainer->hash()) << method;
  }
}

TEST(Trainer, SmallerRunsGiveTheSameGradients) {
  TrainerOptions options = options_of("sgd", 1e-2);
  auto one = setup(golden_folder("llama"), {"full", "all", 4, 8, 1}, options);
  options.micro_tokens = kLength;
  auto many = setup(golden_folder("llama"), {"full", "all", 4, 8, 1}, options);
  const auto a = losses(*one.trainer, 5);
  const auto b = losses(*many.trainer, 5);
  ASSERT_EQ(a.size(), b.size());
  // Sums of six parts instead of one: some roundings more.
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
}

// The last layer moves as in a run by gradients, the others as in one by forward passes that leaves
// the last layer alone.
TEST(Trainer, TheElasticSplitIsBothOfItsParts) {
  const std::string model = golden_folder("llama");
  const MethodOptions method{"lora", "all", 4, 8, 1};
  TrainerOptions options = options_of("sgd", 1e-2);
  const auto backward = setup(model, method, options);
  losses(*backward.trainer, 1);
  options.forward.emplace();
  options.forward->directions = 3;
  const std::int64_t last = backward.session->config().layers - 1;
  const auto forward = setup(model, method, options, engine::Arithmetic::kFloat, 2, last);
  losses(*forward.trainer, 1);
  options.backward_layers = 1;
  options.backward_factor = 1;
  const auto split = setup(model, method, options);
  ASSERT_NE(split.trainer, nullptr);
  losses(*split.trainer, 1);
  std::size_t moved = 0;
  for (std::size_t i = 0; i < split.trained->tensors.size(); ++i) {
    const TrainedTensor& tensor = split.trained->tensors[i];
    const bool upper = engine::layer_of(tensor.name) == last;
    const auto& expected = (upper ? backward : forward).trained->tensors[i].values;
    for (std::size_t j = 0; j < tensor.values.size(); ++j) {
      ASSERT_NEAR(tensor.values[j], expected[j], 1e-6F) << tensor.name;
      moved += upper && tensor.name.ends_with("lora_b") && tensor.values[j] != 0 ? 1 : 0;
    }
  }
  EXPECT_GT(moved, 100U);
  const auto more = losses(*split.trainer, 6);
  EXPECT_LT(more.back(), more.front());
  options.backward_layers = last + 1;
  Trained again = *prepare(*split.session, method);
  EXPECT_FALSE(Trainer::create(*split.session, again, split.examples, options).ok());
}

TEST(Trainer, NothingIsCompiledAfterTheFirstStep) {
  auto made = setup(golden_folder("qwen3"), {"lora", "all", 4, 8, 1}, options_of("adamw", 1e-3));
  ASSERT_NE(made.trainer, nullptr);
  losses(*made.trainer, 1);
  const std::int64_t compiled = made.trainer->compiled_programs();
  losses(*made.trainer, 10);
  EXPECT_EQ(made.trainer->compiled_programs(), compiled);
}

// Scoring sees what was trained, not a copy of what was there before.
TEST(Trainer, ScoresWhatWasTrained) {
  for (const char* method : {"full", "head", "lora"}) {
    auto made = setup(golden_folder("llama"), {method, "all", 4, 8, 1}, options_of("adamw", 2e-3));
    ASSERT_NE(made.trainer, nullptr);
    const auto before = made.trainer->evaluate(made.examples);
    ASSERT_TRUE(before.ok());
    const auto found = losses(*made.trainer, 6);
    EXPECT_NEAR(*before, found.front(), 1e-5) << method;
    const auto after = made.trainer->evaluate(made.examples);
    ASSERT_TRUE(after.ok());
    const auto next = losses(*made.trainer, 1);
    EXPECT_NEAR(*after, next.front(), 1e-5) << method;
  }
}

TEST(Trainer, RefusesWhatTrainsNothing) {
  engine::SessionOptions how;
  how.context = 32;
  auto session = engine::Session::open(golden_folder("llama"), how);
  ASSERT_TRUE(session.ok());
  EXPECT_FALSE(prepare(**session, {"lora", "nothing_like_this", 4, 8, 1}).ok());
  EXPECT_FALSE(prepare(**session, {"lora", "all", 0, 8, 1}).ok());
  EXPECT_FALSE(prepare(**session, {"magic", "all", 4, 8, 1}).ok());
}

}  // namespace
}  // namespace hone::tune
