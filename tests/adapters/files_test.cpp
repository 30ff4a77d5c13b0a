// Adapters in files: PEFT's own logits, round trips through both forms, files that break.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fstream>

#include "formats/adapter_peft.h"
#include "support.h"

namespace hone::testing_adapters {
namespace {

using engine::ModelSource;
using engine::Session;
using testing_models::all_logits;
using testing_models::cached_model;
using testing_models::golden_folder;
using testing_models::golden_tokens;

// The golden model that an adapter's folder is for.
std::string model_of(const std::string& name) {
  return golden_folder(name.substr(0, name.find("-dora")));
}

class Peft : public testing::TestWithParam<const char*> {};

TEST_P(Peft, LogitsOfPeft) {
  const std::string name = GetParam();
  const auto session = Session::open(model_of(name), exact());
  ASSERT_TRUE(session.ok());
  const auto adapter = engine::read_adapter(golden_adapter(name), (*session)->source());
  ASSERT_TRUE(adapter.ok()) << adapter.error().text();
  ASSERT_TRUE((*session)->attach(*adapter).ok());
  const auto tokens = golden_tokens(name.substr(0, name.find("-dora")));
  const auto found = all_logits(**session, tokens);
  ASSERT_TRUE(found.ok()) << found.error().text();
  const auto expected = read_floats(golden_adapter(name) + "/logits.bin");
  const auto plain = read_floats(model_of(name) + "/logits.bin");
  ASSERT_EQ(found->size(), expected.size());
  EXPECT_GT(largest_gap(plain, expected), 0.1);
  EXPECT_GE(cosine(*found, expected), 0.999999);
  double largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(double{value}));
  EXPECT_LE(largest_gap(*found, expected), largest * 1e-4);
}

TEST_P(Peft, RoundTrips) {
  const std::string name = GetParam();
  const auto model = ModelSource::open(model_of(name));
  ASSERT_TRUE(model.ok());
  const auto adapter = engine::read_adapter(golden_adapter(name), *model);
  ASSERT_TRUE(adapter.ok()) << adapter.error().text();
  const Scratch gguf(name + ".gguf");
  const Scratch folder(name);
  ASSERT_TRUE(engine::write_adapter(gguf.path(), *adapter, *model).ok());
  const auto from_gguf = engine::read_adapter(gguf.path(), *model);
  ASSERT_TRUE(from_gguf.ok()) << from_gguf.error().text();
  const Status written = engine::write_adapter(folder.path(), *from_gguf, *model);
  ASSERT_TRUE(written.ok()) << written.error().text();
  const auto from_folder = engine::read_adapter(folder.path(), *model);
  ASSERT_TRUE(from_folder.ok()) << from_folder.error().text();
  // GGUF keeps alpha in f32.
  EXPECT_NEAR(from_gguf->alpha, adapter->alpha, 1e-7 * adapter->alpha);
  EXPECT_EQ(from_folder->weights.size(), adapter->weights.size());
  for (const auto& [weight_name, weight] : adapter->weights) {
    for (const Adapter* other : {&*from_gguf, &*from_folder}) {
      const auto at = other->weights.find(weight_name);
      ASSERT_NE(at, other->weights.end()) << weight_name;
      EXPECT_EQ(at->second.a, weight.a) << weight_name;
      EXPECT_EQ(at->second.b, weight.b) << weight_name;
      EXPECT_EQ(at->second.magnitude, weight.magnitude) << weight_name;
      EXPECT_NEAR(other->scale(weight.rank), adapter->scale(weight.rank),
                  1e-7 * adapter->scale(weight.rank));
    }
  }
  // A folder with something in it is left alone.
  EXPECT_FALSE(engine::write_adapter(folder.path(), *adapter, *model).ok());
}

INSTANTIATE_TEST_SUITE_P(All, Peft,
                         testing::Values("llama", "llama-rope3", "gemma3", "qwen2", "gpt2",
                                         "llama-dora", "gpt2-dora"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Pooled, RoundTripsInGgufAlone) {
  const auto model = ModelSource::open(golden_folder("llama"));
  ASSERT_TRUE(model.ok());
  const Adapter adapter = random_adapter(*model, "all", 3, 1, AdapterKind::kPooled);
  const Scratch gguf("pooled.gguf");
  const Scratch folder("pooled");
  ASSERT_TRUE(engine::write_adapter(gguf.path(), adapter, *model).ok());
  const auto read = engine::read_adapter(gguf.path(), *model);
  ASSERT_TRUE(read.ok()) << read.error().text();
  EXPECT_EQ(read->kind, AdapterKind::kPooled);
  EXPECT_EQ(read->weights.at("blk.1.ffn_up.weight").b, adapter.weights.at("blk.1.ffn_up.weight").b);
  const Status status = engine::write_adapter(folder.path(), adapter, *model);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().text().find("hone merge"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder.path()));
}

// A file without matrices is no adapter, and so on: each says what is wrong.
TEST(Broken, GgufFiles) {
  const auto model = ModelSource::open(golden_folder("llama"));
  ASSERT_TRUE(model.ok());
  const Scratch file("broken.gguf");
  const std::vector<float> numbers(64 * 8, 0.5f);
  const auto bytes = [&](std::size_t count) {
    return std::as_bytes(std::span(numbers)).first(count * sizeof(float));
  };
  const auto error_of = [&](const formats::Metadata& metadata,
                            const std::vector<formats::GgufTensorToWrite>& tensors) {
    EXPECT_TRUE(formats::write_gguf(file.path(), metadata, tensors).ok());
    const auto adapter = engine::read_adapter(file.path(), *model);
    EXPECT_FALSE(adapter.ok());
    return adapter.ok() ? std::string() : adapter.error().text();
  };
  formats::Metadata metadata("test");
  metadata.set("general.architecture", std::string("llama"));
  const formats::GgufTensorToWrite a{
      "blk.0.attn_q.weight.lora_a", DType::kF32, {4, 64}, bytes(4 * 64), nullptr};
  const formats::GgufTensorToWrite b{
      "blk.0.attn_q.weight.lora_b", DType::kF32, {64, 4}, bytes(4 * 64), nullptr};
  EXPECT_NE(error_of(metadata, {a, b}).find("holds no adapter"), std::string::npos);
  metadata.set("general.type", std::string("adapter"));
  EXPECT_NE(error_of(metadata, {a, b}).find("adapter.type"), std::string::npos);
  metadata.set("adapter.type", std::string("control_vector"));
  EXPECT_NE(error_of(metadata, {a, b}).find("kind of adapter"), std::string::npos);
  metadata.set("adapter.type", std::string("lora"));
  EXPECT_NE(error_of(metadata, {}).find("changes nothing"), std::string::npos);
  EXPECT_NE(error_of(metadata, {a}).find("do not fit together"), std::string::npos);
  const formats::GgufTensorToWrite narrow{
      "blk.0.attn_q.weight.lora_b", DType::kF32, {64, 2}, bytes(2 * 64), nullptr};
  EXPECT_NE(error_of(metadata, {a, narrow}).find("do not fit together"), std::string::npos);
  const formats::GgufTensorToWrite alone{
      "blk.0.attn_q.weight", DType::kF32, {64, 4}, bytes(4 * 64), nullptr};
  EXPECT_NE(error_of(metadata, {a, b, alone}).find("belongs to no pair"), std::string::npos);
  metadata.set("adapter.lora.alpha", std::string("much"));
  EXPECT_NE(error_of(metadata, {a, b}).find("adapter.lora.alpha"), std::string::npos);
  metadata.set("adapter.lora.alpha", 8.0f);
  EXPECT_TRUE(formats::write_gguf(file.path(), metadata, std::vector{a, b}).ok());
  EXPECT_TRUE(engine::read_adapter(file.path(), *model).ok());
  // Cut anywhere, it is an error and nothing worse.
  const auto whole = read_file(file.path());
  ASSERT_TRUE(whole.ok());
  for (std::size_t size = 0; size < whole->size(); size += 61) {
    ASSERT_TRUE(write_file_atomically(file.path(), std::string_view(*whole).substr(0, size)).ok());
    EXPECT_FALSE(engine::read_adapter(file.path(), *model).ok()) << size;
  }
}

TEST(Broken, PeftFolders) {
  const auto model = ModelSource::open(golden_folder("llama"));
  ASSERT_TRUE(model.ok());
  const Scratch folder("peft");
  std::filesystem::copy(golden_adapter("llama"), folder.path());
  const std::string config = folder.path() + "/adapter_config.json";
  const auto original = read_file(config);
  ASSERT_TRUE(original.ok());
  ASSERT_TRUE(engine::read_adapter(folder.path(), *model).ok());
  const auto error_with = [&](const std::string& key, const nlohmann::json& value) {
    auto root = nlohmann::json::parse(*original);
    root[key] = value;
    EXPECT_TRUE(write_file_atomically(config, root.dump()).ok());
    const auto adapter = engine::read_adapter(folder.path(), *model);
    EXPECT_FALSE(adapter.ok()) << key;
    return adapter.ok() ? std::string() : adapter.error().text();
  };
  EXPECT_NE(error_with("peft_type", "IA3").find("peft_type"), std::string::npos);
  EXPECT_NE(error_with("use_qalora", true).find("use_qalora"), std::string::npos);
  EXPECT_NE(error_with("bias", "all").find("bias"), std::string::npos);
  EXPECT_NE(error_with("modules_to_save", {"lm_head"}).find("modules_to_save"), std::string::npos);
  EXPECT_NE(error_with("lora_alpha", "8").find("lora_alpha"), std::string::npos);
  EXPECT_NE(error_with("alpha_pattern", {{"^q", 1}}).find("alpha_pattern"), std::string::npos);
  ASSERT_TRUE(write_file_atomically(config, "{\"peft_type\": ").ok());
  const auto cut = engine::read_adapter(folder.path(), *model);
  ASSERT_FALSE(cut.ok());
  EXPECT_NE(cut.error().text().find("does not parse"), std::string::npos);
  // A folder for another model names a module that this one lacks.
  const auto other = engine::read_adapter(golden_adapter("gpt2"), *model);
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().text().find("is the adapter for this model?"), std::string::npos);
  EXPECT_FALSE(engine::read_adapter(golden_folder("llama"), *model).ok());
}

TEST(Modules, WordsNamesAndExpressions) {
  const auto model = ModelSource::open(golden_folder("llama"));
  ASSERT_TRUE(model.ok());
  const auto count = [&](const char* words) {
    const auto names = engine::select_modules(*model, words);
    return names ? static_cast<int>(names->size()) : -1;
  };
  EXPECT_EQ(count("all"), 14);
  EXPECT_EQ(count("attn"), 8);
  EXPECT_EQ(count("mlp"), 6);
  EXPECT_EQ(count("q,k,v,o,gate,up,down"), 14);
  EXPECT_EQ(count("qkv"), 6);
  EXPECT_EQ(count("q, v"), 4);
  EXPECT_EQ(count("q,q_proj,attn_q"), 2);
  EXPECT_EQ(count("self_attn.q_proj"), 2);
  EXPECT_EQ(count("blk.1.ffn_up.weight"), 1);
  EXPECT_EQ(count("model.layers.1.mlp.up_proj"), 1);
  EXPECT_EQ(count("head"), 1);
  EXPECT_EQ(count("all,head"), 15);
  EXPECT_EQ(count("blk\\.0\\."), 7);
  EXPECT_EQ(count("layers\\.[01]\\.self_attn\\.(q|k)_proj,down"), 6);
  EXPECT_EQ(count("(q|k){1,2}_proj"), 4);
  EXPECT_EQ(count("x_proj"), -1);
  EXPECT_EQ(count("q,nothing"), -1);
  EXPECT_EQ(count("(q"), -1);
  EXPECT_EQ(count(""), -1);
  EXPECT_EQ(count("attn_norm"), -1);  // a vector
  EXPECT_EQ(count("token_embd"), -1);
  const auto tied = ModelSource::open(golden_folder("llama-rope3"));
  ASSERT_TRUE(tied.ok());
  const auto head = engine::select_modules(*tied, "head");
  ASSERT_FALSE(head.ok());
  EXPECT_NE(head.error().text().find("embedding"), std::string::npos);
  const auto gpt2 = ModelSource::open(golden_folder("gpt2"));
  ASSERT_TRUE(gpt2.ok());
  EXPECT_EQ(engine::select_modules(*gpt2, "all")->size(), 8u);
  EXPECT_EQ(engine::select_modules(*gpt2, "c_attn")->size(), 2u);
  EXPECT_EQ(engine::select_modules(*gpt2, "mlp.c_proj")->size(), 2u);
}

// Numbers that tests/golden/adapters/make.py makes by the same rule.
std::vector<float> by_rule(std::int64_t count, std::uint32_t salt, float size) {
  std::vector<float> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint32_t state = static_cast<std::uint32_t>(i) + salt * 2654435761u;
    state ^= state >> 16;
    state *= 0x7FEB352Du;
    state ^= state >> 15;
    state *= 0x846CA68Bu;
    state ^= state >> 16;
    out[i] = (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f) * size;
  }
  return out;
}

TEST(RealModel, AnswersOfLlamaCpp) {
  const auto text = read_file(golden_adapter("smollm2.json"));
  ASSERT_TRUE(text.ok());
  const auto golden = nlohmann::json::parse(*text, nullptr, false);
  const std::string path = cached_model(golden["file"].get<std::string>());
  if (path.empty()) GTEST_SKIP() << golden["file"] << " is not in the cache";
  const auto session = Session::open(path, exact());
  ASSERT_TRUE(session.ok()) << session.error().text();
  Adapter adapter = random_adapter((*session)->source(), "q,v,down", 8, 1);
  adapter.alpha = 16;
  std::uint32_t number = 0;
  for (auto& [name, weight] : adapter.weights) {
    weight.a = by_rule(weight.rank * weight.inputs, 2 * number, 0.1f);
    weight.b = by_rule(weight.outputs * weight.rank, 2 * number + 1, 0.1f);
    ++number;
  }
  const Scratch file("smollm2.gguf");
  ASSERT_TRUE(engine::write_adapter(file.path(), adapter, (*session)->source()).ok());
  const auto read = engine::read_adapter(file.path(), (*session)->source());
  ASSERT_TRUE(read.ok()) << read.error().text();
  const auto prompt = golden["tokens"].get<std::vector<engine::TokenId>>();
  const auto plain = golden["plain"]["logits"].get<std::vector<float>>();
  const auto adapted = golden["adapted"]["logits"].get<std::vector<float>>();
  for (const char* which : {"plain", "adapted"}) {
    const Status attached = (*session)->attach(*read, std::string(which) == "adapted" ? 1 : 0);
    ASSERT_TRUE(attached.ok()) << attached.error().text();
    const auto answer = golden[which]["answer"].get<std::vector<engine::TokenId>>();
    const auto sample = golden[which]["logits"].get<std::vector<float>>();
    const engine::SequenceId sequence = (*session)->begin();
    auto logits = (*session)->prefill(sequence, prompt);
    ASSERT_TRUE(logits.ok()) << logits.error().text();
    std::vector<float> found;
    for (std::size_t i = 0; i < logits->size(); i += 96) found.push_back((*logits)[i]);
    // llama.cpp rounds activations to 8 bits, with and without an adapter: an angle, but one far
    // below that between the two.
    EXPECT_LE(1 - cosine(found, sample), 0.1 * (1 - cosine(plain, adapted))) << which;
    const auto lead = golden[which]["lead"].get<std::vector<float>>();
    for (std::size_t i = 0; i < answer.size(); ++i) {
      const auto best = std::max_element(logits->begin(), logits->end());
      const float found_lead = *best - (*logits)[static_cast<std::size_t>(answer[i])];
      EXPECT_LE(found_lead, 0.25f) << which << " " << i;
      if (lead[i] > 0.5f) {
        EXPECT_EQ(best - logits->begin(), answer[i]) << which << " " << i;
      }
      logits = (*session)->prefill(sequence, std::span(answer).subspan(i, 1));
      ASSERT_TRUE(logits.ok());
    }
    (*session)->end(sequence);
  }
}

}  // namespace
}  // namespace hone::testing_adapters
