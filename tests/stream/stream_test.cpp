// Streamed weights: the same bits as weights that are held, for every kind of step and of model;
// errors of reading and of the window's size.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "../support/models.h"
#include "base/file.h"
#include "feedback/gradient.h"
#include "tune/scratch_folder.h"

namespace hone {
namespace {

using testing_models::all_logits;
using testing_models::cached_model;
using testing_models::golden_folder;
using testing_models::golden_tokens;
using testing_models::quantized_copy;

std::unique_ptr<engine::Session> open(const std::string& model, std::int64_t stream,
                                      int threads = 2, const std::string& packed = "") {
  engine::SessionOptions options;
  options.threads = threads;
  options.context = 64;
  options.batch = 8;
  options.stream = stream;
  options.packed_folder = packed;
  auto session = engine::Session::open(model, options);
  EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
  return session.ok() ? *std::move(session) : nullptr;
}

// Bytes of the largest matrix, packed: no window can be smaller, but for embeddings.
std::int64_t largest_matrix(engine::Session& session) {
  std::int64_t largest = 0;
  for (const formats::TensorRecord& tensor : session.source().tensors()) {
    if (tensor.shape.size() != 2) continue;
    const auto layout = kernels::packed_layout(tensor.dtype, tensor.shape[0], tensor.shape[1]);
    if (layout) largest = std::max(largest, layout->total_bytes);
  }
  return largest;
}

// A prompt in steps of eight tokens, and then tokens one by one.
std::vector<float> generated(engine::Session& session, std::span<const engine::TokenId> tokens) {
  std::vector<float> out;
  const engine::SequenceId sequence = session.begin();
  const auto add = [&](const Result<std::span<const float>>& logits) {
    EXPECT_TRUE(logits.ok()) << (logits.ok() ? "" : logits.error().text());
    if (logits.ok()) out.insert(out.end(), logits->begin(), logits->end());
  };
  add(session.prefill(sequence, tokens.first(tokens.size() - 3)));
  for (std::size_t i = tokens.size() - 3; i < tokens.size(); ++i) {
    const engine::Request request{sequence, tokens.subspan(i, 1), engine::Wanted::kLast};
    add(session.step(std::span(&request, 1)));
  }
  session.end(sequence);
  return out;
}

struct Computed {
  double loss = 0;
  std::vector<std::vector<float>> gradients;
};

// The loss alone, or with gradients of the final norm: what reads every matrix backwards, too.
Computed trained(engine::Session& session, std::span<const std::int32_t> tokens,
                 bool forward_only) {
  feedback::GradientOptions options;
  options.compile = session.options().compile;
  options.forward_only = forward_only;
  if (!forward_only) options.trained = {"blk.0.attn_norm.weight"};
  feedback::Gradient gradient(session, options);
  feedback::TokenBatch batch;
  const std::vector<std::uint8_t> learn(tokens.size(), 1);
  batch.add(tokens, learn);
  batch.add(tokens.first(tokens.size() / 2), learn);
  Computed out;
  for (int run = 0; run < 2; ++run) {
    const auto outcome = gradient.run(batch);
    EXPECT_TRUE(outcome.ok()) << (outcome.ok() ? "" : outcome.error().text());
    if (!outcome.ok()) return out;
    out.loss += outcome->loss;
    for (const auto each : outcome->gradients) out.gradients.emplace_back(each.begin(), each.end());
  }
  return out;
}

void expect_same(const std::vector<float>& held, const std::vector<float>& streamed) {
  ASSERT_FALSE(held.empty());
  ASSERT_EQ(held.size(), streamed.size());
  EXPECT_EQ(std::memcmp(held.data(), streamed.data(), held.size() * sizeof(float)), 0);
}

// `backward`: gradients, too.
void compare(const std::string& model, std::span<const engine::TokenId> tokens, double windows,
             std::initializer_list<int> threads_of, bool backward) {
  const auto held = open(model, -1);
  ASSERT_NE(held, nullptr);
  const auto window =
      static_cast<std::int64_t>(windows * static_cast<double>(largest_matrix(*held))) + 4096;
  for (const int threads : threads_of) {
    const auto streamed = open(model, window, threads);
    ASSERT_NE(streamed, nullptr);
    ASSERT_NE(streamed->weights().stream(), nullptr);
    expect_same(generated(*held, tokens), generated(*streamed, tokens));
    for (const bool forward_only : {true, false}) {
      if (!forward_only && !backward) continue;
      const Computed a = trained(*held, tokens, forward_only);
      const Computed b = trained(*streamed, tokens, forward_only);
      EXPECT_EQ(a.loss, b.loss);
      EXPECT_GT(a.loss, 0);
      ASSERT_EQ(a.gradients.size(), b.gradients.size());
      EXPECT_EQ(a.gradients.empty(), forward_only);
      for (std::size_t i = 0; i < a.gradients.size(); ++i) {
        expect_same(a.gradients[i], b.gradients[i]);
      }
    }
    const engine::StreamStats stats = streamed->weights().stream()->stats();
    EXPECT_GT(stats.runs, 0);
    EXPECT_GT(stats.bytes_read, streamed->source().file_bytes() / 2);
  }
}

TEST(StreamTest, SmallModelsGiveTheSameBits) {
  for (const char* name : {"llama", "gemma3", "qwen3"}) {
    SCOPED_TRACE(name);
    for (const DType dtype : {DType::kQ4_1, DType::kQ8_0}) {
      const std::string path = quantized_copy(name, dtype);
      ASSERT_FALSE(path.empty());
      compare(path, golden_tokens(name), 5, {2, 1}, true);
    }
    compare(golden_folder(name), golden_tokens(name), 5, {2, 1}, true);  // safetensors
  }
}

TEST(StreamTest, APackedFileIsStreamedAsItIs) {
  const std::string path = quantized_copy("llama", DType::kQ4_1);
  const tune::ScratchFolder folder;
  ASSERT_FALSE(path.empty());
  const auto held = open(path, -1);
  const std::int64_t window = 5 * largest_matrix(*held);
  const auto plain = open(path, window, 2, folder.path());
  const std::vector<float> expected = generated(*plain, golden_tokens("llama"));
  expect_same(generated(*held, golden_tokens("llama")), expected);
  const auto kept = plain->keep_packed(0);
  ASSERT_TRUE(kept.ok()) << kept.error().text();
  if (!*kept) GTEST_SKIP() << "the disk is nearly full";
  const auto packed = open(path, window, 2, folder.path());
  expect_same(expected, generated(*packed, golden_tokens("llama")));
  const engine::StreamStats stats = packed->weights().stream()->stats();
  EXPECT_GT(stats.bytes_read, packed->source().file_bytes() / 2);
  EXPECT_FALSE(*packed->keep_packed(0));  // it is there
  // Held weights come out of the same file.
  const auto mapped = open(path, -1, 2, folder.path());
  expect_same(expected, generated(*mapped, golden_tokens("llama")));
  // It is that file which is read: what is changed in it shows.
  const std::string file = engine::packed_path(folder.path(), path);
  auto bytes = *read_file(file);
  for (std::size_t i = bytes.size() / 2; i < bytes.size() / 2 + 4096; ++i) bytes[i] ^= 0x55;
  ASSERT_TRUE(write_file_atomically(file, bytes).ok());
  const auto changed = open(path, window, 2, folder.path());
  EXPECT_NE(expected, generated(*changed, golden_tokens("llama")));
}

TEST(StreamTest, RealModelsGiveTheSameBits) {
  bool any = false;
  for (const char* file : {"smollm2-135m-instruct-q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"}) {
    const std::string path = cached_model(file);
    if (path.empty()) continue;
    any = true;
    std::vector<engine::TokenId> tokens;
    for (int i = 0; i < 12; ++i) tokens.push_back(100 + 37 * i);
    // The largest is the embedding, many times the others.
    compare(path, tokens, 1.1, {2}, false);
  }
  if (!any) GTEST_SKIP() << "no models in the cache: hone fetch smollm2";
}

TEST(StreamTest, AWindowThatIsTooSmallIsRefused) {
  const std::string path = quantized_copy("llama", DType::kQ4_1);
  ASSERT_FALSE(path.empty());
  const auto session = open(path, 1024);
  ASSERT_NE(session, nullptr);
  const auto logits = all_logits(*session, golden_tokens("llama"));
  ASSERT_FALSE(logits.ok());
  EXPECT_EQ(logits.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(logits.error().text().find("--stream"), std::string::npos) << logits.error().text();
}

TEST(StreamTest, AFileThatEndsIsAnErrorAndTheSessionGoesOn) {
  const std::string whole = quantized_copy("llama", DType::kQ4_1);
  ASSERT_FALSE(whole.empty());
  const std::string path = whole + ".cut.gguf";
  std::filesystem::copy_file(whole, path, std::filesystem::copy_options::overwrite_existing);
  const auto tokens = golden_tokens("llama");
  const auto held = open(whole, -1);
  const auto streamed = open(path, 2 * largest_matrix(*held) + 4096);
  ASSERT_NE(streamed, nullptr);
  ASSERT_TRUE(streamed->prepare(8, 1, 8).ok());
  const auto expected = all_logits(*held, tokens);
  const auto before = all_logits(*streamed, tokens);
  ASSERT_TRUE(expected.ok() && before.ok());
  expect_same(*expected, *before);

  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  const engine::SequenceId sequence = streamed->begin();
  const engine::Request request{sequence, tokens, engine::Wanted::kAll};
  for (int i = 0; i < 3; ++i) {
    const auto logits = streamed->step(std::span(&request, 1));
    ASSERT_FALSE(logits.ok());
    EXPECT_EQ(logits.error().code, ErrorCode::kIo);
    EXPECT_NE(logits.error().text().find("the end of the file"), std::string::npos)
        << logits.error().text();
    EXPECT_EQ(streamed->length(sequence), 0);
  }
  std::filesystem::copy_file(whole, path, std::filesystem::copy_options::overwrite_existing);
  const auto after = streamed->step(std::span(&request, 1));
  ASSERT_TRUE(after.ok()) << after.error().text();
  expect_same(*expected, {after->begin(), after->end()});
  std::filesystem::remove(path);
}

TEST(StreamTest, StreamedWeightsCannotBePatched) {
  const std::string path = quantized_copy("llama", DType::kQ4_1);
  ASSERT_FALSE(path.empty());
  const auto session = open(path, 1 << 24);
  ASSERT_NE(session, nullptr);
  ASSERT_TRUE(session->prepare(1, 1, 1).ok());
  const formats::TensorRecord* tensor = session->source().find("blk.0.ffn_up.weight");
  ASSERT_NE(tensor, nullptr);
  const Status status = session->weights().patch(tensor->name, tensor->data);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace hone
