// Soft prompts trained: PEFT's loss curve, the same bits after resuming and however the work is
// split, and the same loss from the adapter that it leaves.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "../support/models.h"
#include "base/file.h"
#include "quant/codec.h"
#include "tune/scratch_folder.h"
#include "tune/setup.h"

namespace hone::tune {
namespace {

using testing_models::golden_folder;

// tests/golden/curves/make.py: example
std::vector<Example> golden_examples() {
  std::vector<Example> examples;
  for (int index = 0; index < 6; ++index) {
    Example example;
    for (int i = 0; i < 20; ++i) {
      example.tokens.push_back((index * 37 + i * i * 11 + i * 5) % 160);
      example.learn.push_back(i > 0 ? 1 : 0);
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

class SoftPromptTraining : public testing::Test {
 protected:
  TrainingSetup make(std::int64_t virtual_tokens, TrainerOptions options, int threads = 2,
                     const std::string& model = golden_folder("llama")) {
    engine::SessionOptions how;
    how.threads = threads;
    how.context = 32;
    how.compile.arithmetic = engine::Arithmetic::kFloat;
    how.compile.verify = true;
    MethodOptions method;
    method.method = "prompt";
    method.virtual_tokens = virtual_tokens;
    auto made = make_setup(model, how, method, std::move(options), examples_);
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().text());
    return made ? *std::move(made) : TrainingSetup{};
  }
  static TrainerOptions options() {
    TrainerOptions options = plain_options("adamw", 3e-2, 6);
    options.clip = 0;
    return options;
  }
  std::vector<double> losses(Trainer& trainer, int steps) {
    std::vector<double> out;
    for (int i = 0; i < steps; ++i) {
      auto report = trainer.step();
      EXPECT_TRUE(report.ok()) << (report.ok() ? "" : report.error().text());
      if (report) out.push_back(report->loss);
    }
    return out;
  }
  std::vector<Example> examples_ = golden_examples();
};

TEST_F(SoftPromptTraining, FollowsPeft) {
  const auto text =
      read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/soft_prompt/curve.json");
  ASSERT_TRUE(text.ok());
  const auto golden = nlohmann::json::parse(*text, nullptr, false);
  const auto tokens = golden["tokens"].get<std::vector<std::int64_t>>();
  const auto expected = golden["losses"].get<std::vector<double>>();
  auto made = make(std::ssize(tokens), options());
  ASSERT_NE(made.trainer, nullptr);
  const formats::TensorRecord* table = made.session->source().find("token_embd.weight");
  const auto rows = quant::dequantize(table->dtype, table->data);
  const std::span<float> prompt = made.trained->tensors[0].values;
  const auto columns = static_cast<std::size_t>(table->shape[1]);
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    prompt[i] = (*rows)[static_cast<std::size_t>(tokens[i / columns]) * columns + i % columns];
  }
  const auto found = losses(*made.trainer, static_cast<int>(expected.size()));
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 1e-3) << "step " << i + 1;
  }
  EXPECT_LT(found.back(), found.front() - 0.1);
}

// It begins as rows of the embedding, with the factor that Gemma puts on them.
TEST_F(SoftPromptTraining, BeginsAsEmbeddedTokens) {
  auto made = make(3, options(), 1, golden_folder("gemma3"));
  ASSERT_NE(made.trainer, nullptr);
  const formats::TensorRecord* table = made.session->source().find("token_embd.weight");
  const auto rows = quant::dequantize(table->dtype, table->data);
  const auto columns = static_cast<std::size_t>(table->shape[1]);
  const float factor = std::sqrt(static_cast<float>(columns));
  const std::span<const float> prompt = made.trained->tensors[0].values;
  int found = 0;
  for (std::size_t i = 0; i < prompt.size(); i += columns) {
    for (std::size_t row = 0; row < rows->size(); row += columns) {
      bool same = true;
      for (std::size_t c = 0; c < columns; ++c) {
        same = same && std::abs(prompt[i + c] - (*rows)[row + c] * factor) < 1e-5F;
      }
      found += same ? 1 : 0;
    }
  }
  EXPECT_EQ(found, 3);
}

TEST_F(SoftPromptTraining, ResumesToTheSameBits) {
  const ScratchFolder scratch;
  auto whole = make(4, options());
  auto half = make(4, options());
  auto rest = make(4, options(), 1);
  ASSERT_NE(rest.trainer, nullptr);
  losses(*whole.trainer, 6);
  losses(*half.trainer, 3);
  auto writer = CheckpointWriter::open(scratch.path());
  ASSERT_TRUE(writer.ok());
  const auto path = writer->write(half.trainer->steps_done(), "{}", half.trainer->state());
  ASSERT_TRUE(path.ok());
  const auto checkpoint = Checkpoint::open(*path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().text();
  ASSERT_TRUE(rest.trainer->restore(*checkpoint).ok());
  losses(*rest.trainer, 3);
  EXPECT_EQ(rest.trainer->hash(), whole.trainer->hash());
}

// Whatever is made again changes no bit; another split of the batch only the order of sums.
TEST_F(SoftPromptTraining, FitsIntoLessMemory) {
  auto whole = make(4, options());
  ASSERT_NE(whole.trainer, nullptr);
  const auto expected = losses(*whole.trainer, 4);
  TrainerOptions again = options();
  again.kept_bytes = 1;
  auto recomputed = make(4, again);
  EXPECT_EQ(losses(*recomputed.trainer, 4), expected);
  TrainerOptions split = options();
  split.micro_tokens = 48;  // two examples behind their virtual tokens
  auto parts = make(4, split);
  const auto found = losses(*parts.trainer, 4);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-4);
  const auto memory = parts.trainer->memory();
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->gradients, parts.trained->bytes());
}

// What the run leaves, read into a fresh session, scores the examples as the trainer does.
TEST_F(SoftPromptTraining, LeavesAnAdapterOfTheSameLoss) {
  auto made = make(4, options());
  ASSERT_NE(made.trainer, nullptr);
  losses(*made.trainer, 5);
  const auto expected = made.trainer->evaluate(std::span(examples_).first(1));
  ASSERT_TRUE(expected.ok());
  engine::Session& session = *made.session;
  ASSERT_TRUE(session.attach(adapter_of(*made.trained, session)).ok());
  const engine::SequenceId id = session.begin();
  const std::vector<formats::TokenId>& tokens = examples_[0].tokens;
  const engine::Request request{id, tokens, engine::Wanted::kAll};
  const auto logits = session.step(std::span(&request, 1));
  ASSERT_TRUE(logits.ok());
  double loss = 0;
  const std::size_t vocabulary = logits->size() / tokens.size();
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    const auto row = logits->subspan(i * vocabulary, vocabulary);
    double sum = 0;
    for (const float value : row) sum += std::exp(double{value});
    loss += std::log(sum) - double{row[static_cast<std::size_t>(tokens[i + 1])]};
  }
  // The session's cache holds f16 by default.
  EXPECT_NEAR(loss / static_cast<double>(tokens.size() - 1), *expected, 1e-3);
}

}  // namespace
}  // namespace hone::tune
