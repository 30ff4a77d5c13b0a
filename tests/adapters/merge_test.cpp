// Merging: the merged file computes what the adapter beside the model computed.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "../support/command.h"
#include "engine/generate.h"
#include "engine/merge.h"
#include "support.h"

namespace hone::testing_adapters {
namespace {

using engine::ModelSource;
using engine::Session;
using testing_models::all_logits;
using testing_models::cached_model;
using testing_models::golden_folder;
using testing_models::golden_tokens;
using testing_models::quantized_copy;

struct Merged {
  std::vector<float> plain, adapted, merged;
  std::vector<engine::MergedTensor> tensors;
};

Merged merge(const std::string& model, const std::string& family, AdapterKind kind,
             engine::Arithmetic arithmetic, const engine::MergeOptions& options = {}) {
  Merged out;
  engine::SessionOptions how = exact();
  how.compile.arithmetic = arithmetic;
  const auto tokens = golden_tokens(family);
  const auto session = Session::open(model, how);
  EXPECT_TRUE(session.ok());
  const ModelSource& source = (*session)->source();
  std::string modules;
  for (const formats::TensorRecord& tensor : source.tensors()) {
    const bool fits = tensor.shape.size() == 2 && tensor.name.starts_with("blk.") &&
                      (kind != AdapterKind::kPooled || tensor.shape[1] % 32 == 0);
    if (fits) modules += (modules.empty() ? "" : ",") + tensor.name;
  }
  const Adapter adapter = random_adapter(source, modules, 3, 11, kind, 0.1f);
  out.plain = *all_logits(**session, tokens);
  EXPECT_TRUE((*session)->attach(adapter, options.strength).ok());
  out.adapted = *all_logits(**session, tokens);
  const Scratch file("merged.gguf");
  ThreadPool pool(2);
  auto tensors = engine::merge_adapter(source, adapter, file.path(), options, pool);
  EXPECT_TRUE(tensors.ok()) << tensors.error().text();
  if (!tensors) return out;
  out.tensors = *std::move(tensors);
  const auto merged = Session::open(file.path(), how);
  EXPECT_TRUE(merged.ok()) << merged.error().text();
  out.merged = *all_logits(**merged, tokens);
  return out;
}

class PooledMerge : public testing::TestWithParam<DType> {};

// Of the change that the adapter makes, merging loses next to nothing, in both arithmetics.
TEST_P(PooledMerge, IsExact) {
  for (const char* family : {"llama", "gemma3", "qwen2"}) {
    const std::string model = quantized_copy(family, GetParam());
    for (const auto arithmetic : {engine::Arithmetic::kFloat, engine::Arithmetic::kInteger}) {
      const Merged merged = merge(model, family, AdapterKind::kPooled, arithmetic);
      const double change = largest_gap(merged.plain, merged.adapted);
      EXPECT_GT(change, 0.05);
      // A minimum rounds to 11 bits: 2^-12 of it, and a few layers make that some more. With int8
      // activations some codes tip over, each by a 254th of the largest of its block.
      const bool exact = arithmetic == engine::Arithmetic::kFloat;
      EXPECT_LE(largest_gap(merged.adapted, merged.merged), (exact ? 0.02 : 0.2) * change)
          << family;
      int shifted = 0;
      std::int64_t before = 0;
      std::int64_t after = 0;
      for (const engine::MergedTensor& tensor : merged.tensors) {
        before += tensor.by_minimums ? tensor.tensor.bytes_before : 0;
        after += tensor.by_minimums ? tensor.tensor.bytes_after : 0;
        shifted += tensor.by_minimums ? 1 : 0;
        EXPECT_EQ(tensor.tensor.edited, tensor.by_minimums) << tensor.tensor.name;
      }
      EXPECT_GT(shifted, 0);
      if (GetParam() == DType::kQ4_1 || GetParam() == DType::kQ5_1) {
        EXPECT_EQ(before, after);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PooledMerge,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1),
                         [](const auto& info) { return std::string(dtype_name(info.param)); });

TEST(Merge, PlainWeightsTakeAnyAdapter) {
  for (const char* family : {"llama", "llama-rope3", "gemma3", "qwen2", "qwen3", "gpt2"}) {
    for (const AdapterKind kind : {AdapterKind::kLora, AdapterKind::kPooled, AdapterKind::kDora}) {
      engine::MergeOptions options;
      options.type = DType::kF32;
      options.strength = 0.5;
      const Merged merged =
          merge(golden_folder(family), family, kind, engine::Arithmetic::kFloat, options);
      const double change = largest_gap(merged.plain, merged.adapted);
      EXPECT_GT(change, 0.01) << family;
      EXPECT_LE(largest_gap(merged.adapted, merged.merged), 1e-3 * change) << family;
    }
  }
}

TEST(Merge, RequantizedWeightsAreNearTheSum) {
  const Merged merged = merge(quantized_copy("llama", DType::kQ8_0), "llama", AdapterKind::kLora,
                              engine::Arithmetic::kFloat);
  EXPECT_LE(largest_gap(merged.adapted, merged.merged),
            0.3 * largest_gap(merged.plain, merged.adapted));
  for (const engine::MergedTensor& tensor : merged.tensors) {
    EXPECT_FALSE(tensor.by_minimums);
    if (tensor.tensor.edited) {
      EXPECT_EQ(tensor.tensor.after, DType::kQ8_0);
      // Codes of 8 bits: half a 127th of the largest of 32.
      EXPECT_LT(tensor.tensor.relative_error(), 0.008);
      EXPECT_GT(tensor.tensor.relative_error(), 0);
    }
  }
}

TEST(Merge, StopsWhenAsked) {
  const auto model = ModelSource::open(golden_folder("llama"));
  const Adapter adapter = random_adapter(*model, "all", 2, 1);
  const Scratch file("stopped.gguf");
  engine::MergeOptions options;
  options.watch = [](std::int64_t) { return false; };
  ThreadPool pool(1);
  EXPECT_FALSE(engine::merge_adapter(*model, adapter, file.path(), options, pool).ok());
  EXPECT_FALSE(std::filesystem::exists(file.path()));
}

// Nats a token of the model over a text, as `hone merge` measures it.
double loss_of(Session& session, const formats::Tokenizer& tokenizer, const std::string& text) {
  const auto found = engine::perplexity(session, tokenizer, text, session.context());
  EXPECT_TRUE(found.ok()) << found.error().text();
  return found ? std::log(found->perplexity) : NAN;
}

struct RealCase {
  const char* file;
  double size;  // of the adapter's part of a weight
};

class RealMerge : public testing::TestWithParam<RealCase> {};

TEST_P(RealMerge, PooledLossStays) {
  const std::string path = cached_model(GetParam().file);
  if (path.empty()) GTEST_SKIP() << GetParam().file << " is not in the cache";
  const auto text = read_file(std::string(HONE_SOURCE_DIR) + "/tests/golden/perplexity/text.txt");
  ASSERT_TRUE(text.ok());
  engine::SessionOptions how;
  how.threads = 2;
  how.context = 128;
  // With int8 activations two models that differ by nothing but roundings differ by about 0.003
  // nats over so few tokens.
  how.compile.arithmetic = engine::Arithmetic::kFloat;
  const auto session = Session::open(path, how);
  ASSERT_TRUE(session.ok());
  const auto tokenizer = formats::Tokenizer::create(*(*session)->source().vocabulary());
  ASSERT_TRUE(tokenizer.ok());
  const std::string part = text->substr(0, 1200);
  const double base = loss_of(**session, *tokenizer, part);
  const Adapter adapter = random_adapter((*session)->source(), "all", 4, 3, AdapterKind::kPooled,
                                         static_cast<float>(GetParam().size));
  ASSERT_TRUE((*session)->attach(adapter).ok());
  const double adapted = loss_of(**session, *tokenizer, part);
  const Scratch file("real.gguf");
  ThreadPool pool(2);
  const auto tensors = engine::merge_adapter((*session)->source(), adapter, file.path(), {}, pool);
  ASSERT_TRUE(tensors.ok()) << tensors.error().text();
  const auto merged_session = Session::open(file.path(), how);
  ASSERT_TRUE(merged_session.ok());
  const double merged = loss_of(**merged_session, *tokenizer, part);
  RecordProperty("losses", fmt::format("{} {} {}", base, adapted, merged));
  EXPECT_GT(std::abs(adapted - base), 0.005);
  EXPECT_NEAR(merged, adapted, 1e-3);
  EXPECT_EQ((*merged_session)->source().file_bytes(), (*session)->source().file_bytes());
}

INSTANTIATE_TEST_SUITE_P(All, RealMerge,
                         testing::Values(RealCase{"smollm2-135m-instruct-q4_1.gguf", 0.03}),
                         [](const auto&) { return std::string("smollm2"); });

TEST(Verb, RefusesWhatCostsTooMuchAndLeavesNothing) {
  const std::string path = cached_model("smollm2-135m-instruct-q4_1.gguf");
  if (path.empty()) GTEST_SKIP() << "smollm2-135m-instruct-q4_1.gguf is not in the cache";
  const auto model = ModelSource::open(path);
  ASSERT_TRUE(model.ok());
  const Scratch folder("verb");
  std::filesystem::create_directories(folder.path());
  const std::string lora = folder.path() + "/lora.gguf";
  ASSERT_TRUE(engine::write_adapter(
                  lora, random_adapter(*model, "q,v", 4, 1, AdapterKind::kLora, 0.2f), *model)
                  .ok());
  const std::string out = folder.path() + "/merged.gguf";
  const auto merge_with = [&](const char* limit) {
    return testing_commands::run({HONE_BINARY, "merge", path, "--adapter", lora, "-o", out,
                                  "--json", "--limit-loss", limit});
  };
  const auto files = [&] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    return names;
  };
  const auto refused = merge_with("0");
  if (refused.status == 0) GTEST_SKIP() << "this adapter merges without a cost";
  EXPECT_EQ(refused.status, 6) << refused.output;
  EXPECT_NE(refused.output.find("no file was written"), std::string::npos) << refused.output;
  EXPECT_EQ(files(), std::vector<std::string>{"lora.gguf"});
  const auto done = merge_with("100");
  EXPECT_EQ(done.status, 0) << done.output;
  EXPECT_EQ(files(), (std::vector<std::string>{"lora.gguf", "merged.gguf"}));
}

}  // namespace
}  // namespace hone::testing_adapters
