// Adapters in a session: what they compute, hot swap, strength, and adapters that do not fit.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "support.h"

namespace hone::testing_adapters {
namespace {

using engine::Session;
using testing_models::all_logits;
using testing_models::golden_folder;
using testing_models::golden_tokens;
using testing_models::quantized_copy;

std::unique_ptr<Session> open(const std::string& model, const engine::SessionOptions& options) {
  auto session = Session::open(model, options);
  EXPECT_TRUE(session.ok()) << session.error().text();
  return session ? *std::move(session) : nullptr;
}

std::vector<float> logits_of(Session& session, std::span<const engine::TokenId> tokens) {
  const auto logits = all_logits(session, tokens);
  EXPECT_TRUE(logits.ok()) << logits.error().text();
  return logits ? *logits : std::vector<float>{};
}

// A session with W + delta in place of W, as f32.
std::vector<float> merged_logits(const std::string& model, const Adapter& adapter,
                                 std::span<const engine::TokenId> tokens) {
  const auto session = open(model, exact());
  for (const auto& [name, weight] : adapter.weights) {
    const formats::TensorRecord& tensor = *session->source().find(name);
    auto values = quant::dequantize(tensor.dtype, tensor.data);
    const std::vector<float> delta = delta_of(adapter, weight);
    for (std::size_t i = 0; i < delta.size(); ++i) (*values)[i] += delta[i];
    const auto added = session->weights().add_owned(name, ir::tensor_type(tensor.shape),
                                                    std::as_bytes(std::span(*values)));
    EXPECT_TRUE(added.ok());
  }
  return logits_of(*session, tokens);
}

class OnFamily : public testing::TestWithParam<std::tuple<const char*, AdapterKind>> {};

TEST_P(OnFamily, GivesWhatMergedWeightsGive) {
  const auto [name, kind] = GetParam();
  const auto tokens = golden_tokens(name);
  for (const std::string& model : {golden_folder(name), quantized_copy(name, DType::kQ4_1)}) {
    const auto session = open(model, exact());
    // Rows of 48 columns cannot be pooled: qwen3 and gpt2 leave these matrices out.
    std::string modules;
    for (const formats::TensorRecord& tensor : session->source().tensors()) {
      if (tensor.shape.size() != 2 || !tensor.name.starts_with("blk.")) continue;
      if (kind == AdapterKind::kPooled && tensor.shape[1] % 32 != 0) continue;
      modules += (modules.empty() ? "" : ",") + tensor.name;
    }
    const Adapter adapter = random_adapter(session->source(), modules, 3, 5, kind);
    ASSERT_FALSE(adapter.weights.empty());
    const auto plain = logits_of(*session, tokens);
    ASSERT_TRUE(session->attach(adapter).ok());
    const auto found = logits_of(*session, tokens);
    const auto expected = merged_logits(model, adapter, tokens);
    EXPECT_GT(largest_gap(plain, found), 0.1) << model;
    EXPECT_GE(cosine(found, expected), 0.999999) << model;
    double largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(double{value}));
    // Two f32 evaluations in different orders of sums: some thousand roundings.
    EXPECT_LE(largest_gap(found, expected), largest * 1e-4) << model;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, OnFamily,
    testing::Combine(testing::Values("llama", "llama-rope3", "gemma3", "qwen2", "qwen3", "gpt2"),
                     testing::Values(AdapterKind::kLora, AdapterKind::kPooled)),
    [](const auto& info) {
      std::string name = std::get<0>(info.param);
      std::erase(name, '-');
      return name + "_" + std::string(adapter_kind_name(std::get<1>(info.param)));
    });

TEST(Swap, SameShapeCompilesNothing) {
  const auto tokens = golden_tokens("llama");
  engine::SessionOptions options;
  options.threads = 2;
  const auto session = open(quantized_copy("llama", DType::kQ4_1), options);
  const Adapter first = random_adapter(session->source(), "all", 4, 1);
  Adapter second = random_adapter(session->source(), "all", 4, 2);
  second.alpha = 3;  // another scale is no other program
  const auto plain = logits_of(*session, tokens);
  ASSERT_TRUE(session->attach(first).ok());
  const auto with_first = logits_of(*session, tokens);
  const std::int64_t compiled = session->compiled_programs();
  ASSERT_TRUE(session->attach(second).ok());
  const auto with_second = logits_of(*session, tokens);
  ASSERT_TRUE(session->attach(first).ok());
  EXPECT_EQ(logits_of(*session, tokens), with_first);
  ASSERT_TRUE(session->attach(second, 0).ok());
  EXPECT_EQ(logits_of(*session, tokens), plain);
  EXPECT_EQ(session->compiled_programs(), compiled);
  EXPECT_GT(largest_gap(with_first, with_second), 0.1);
  // Without an adapter the first program serves again.
  session->detach();
  EXPECT_EQ(logits_of(*session, tokens), plain);
  EXPECT_EQ(session->compiled_programs(), compiled);
  // DoRA's gain of strength 0 is 1.
  ASSERT_TRUE(
      session->attach(random_adapter(session->source(), "all", 4, 3, AdapterKind::kDora), 0).ok());
  EXPECT_EQ(logits_of(*session, tokens), plain);
}

// The base's matmuls go on fusing as they do alone, and the adapter's part is added while it is
// multiplied: no addition stays by itself.
TEST(Compile, BaseAndAdapterFuse) {
  engine::SessionOptions options;
  options.threads = 2;
  const auto session = open(quantized_copy("llama", DType::kQ4_1), options);
  const auto count = [&](const char* op) {
    const auto graph = session->build_graph({1, 1, 4, 1});
    EXPECT_TRUE(graph.ok());
    const auto after = engine::run_passes(*graph, session->options().compile);
    EXPECT_TRUE(after.ok()) << after.error().text();
    return std::ranges::count_if(after->operations,
                                 [&](const auto& operation) { return operation.is(op); });
  };
  ASSERT_EQ(count("add"), 0);
  ASSERT_TRUE(session->attach(random_adapter(session->source(), "all", 4, 1)).ok());
  EXPECT_EQ(count("add"), 0);
  // Of 2 layers: q, k and v together, gate and up together, and the same of the adapter's A.
  EXPECT_EQ(count("matmul_group"), 8);
  // Output and down add to the residual; all 7 adapters add to what they belong to.
  EXPECT_EQ(count("matmul_add"), 18);
  EXPECT_EQ(count("rope_write"), 2);
}

TEST(Swap, OtherShapesCompileOnceEach) {
  const auto tokens = golden_tokens("llama");
  const auto session = open(golden_folder("llama"), exact());
  const std::vector<Adapter> adapters = {
      random_adapter(session->source(), "q,v", 4, 1),
      random_adapter(session->source(), "q,v", 5, 2),
      random_adapter(session->source(), "mlp", 4, 3),
      random_adapter(session->source(), "q,v", 4, 4, AdapterKind::kPooled)};
  std::vector<std::vector<float>> expected;
  for (const Adapter& adapter : adapters) {
    ASSERT_TRUE(session->attach(adapter).ok());
    expected.push_back(logits_of(*session, tokens));
  }
  EXPECT_EQ(session->compiled_programs(), 4);
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    ASSERT_TRUE(session->attach(adapters[i]).ok());
    EXPECT_EQ(logits_of(*session, tokens), expected[i]) << i;
  }
  EXPECT_EQ(session->compiled_programs(), 4);
}

TEST(Swap, PrefixesOfAnotherAdapterAreNotShared) {
  const auto session = open(golden_folder("llama"), exact());
  std::vector<engine::TokenId> tokens;
  for (engine::TokenId i = 0; i < 70; ++i) tokens.push_back(3 + i % 90);
  logits_of(*session, tokens);
  const engine::SequenceId before = session->begin();
  EXPECT_EQ(session->reuse(before, tokens), 64);  // two pages
  session->end(before);
  const Adapter adapter = random_adapter(session->source(), "all", 2, 1);
  const engine::SequenceId running = session->begin();
  ASSERT_TRUE(session->prefill(running, std::span(tokens).first(40)).ok());
  ASSERT_TRUE(session->attach(adapter).ok());
  // Half of this sequence was computed without the adapter: nobody may share it.
  ASSERT_TRUE(session->prefill(running, std::span(tokens).subspan(40)).ok());
  const engine::SequenceId after = session->begin();
  EXPECT_EQ(session->reuse(after, tokens), 0);
  session->end(running);
  session->end(after);
  logits_of(*session, tokens);
  const engine::SequenceId again = session->begin();
  EXPECT_EQ(session->reuse(again, tokens), 64);
}

TEST(Owned, WritesInPlaceAreSeenAtTheNextRun) {
  const auto tokens = golden_tokens("llama");
  const auto session = open(golden_folder("llama"), exact());
  const auto graph = session->build_graph({static_cast<std::int64_t>(tokens.size()), 1, 4, 1});
  ASSERT_TRUE(graph.ok());
  passes::LoraOptions options;
  options.ranks = {{"blk.1.ffn_down.weight", 4}};
  options.writable = true;
  const auto adapted = passes::add_lora(*graph, options);
  ASSERT_TRUE(adapted.ok()) << adapted.error().text();
  const auto program = engine::compile(*adapted, session->options().compile);
  ASSERT_TRUE(program.ok()) << program.error().text();
  int row_major = 0;
  const std::vector<float> zeros(64 * 96);
  for (const runtime::Slot& slot : program->parameters) {
    if (!slot.name.ends_with(".lora_a") && !slot.name.ends_with(".lora_b")) continue;
    ++row_major;
    EXPECT_EQ(slot.type.layout, ir::Layout::kRowMajor) << slot.name;
    const auto bytes = static_cast<std::size_t>(slot.type.bytes());
    const auto memory = session->weights().add_owned(slot.name, slot.type,
                                                     std::as_bytes(std::span(zeros)).first(bytes));
    ASSERT_TRUE(memory.ok());
    const auto weight = session->weights().get(slot.name, slot.type);
    ASSERT_TRUE(weight.ok());
    EXPECT_EQ((*weight)->bytes.data(), memory->data());
    // The same again keeps the address; another shape does not disturb it.
    ASSERT_TRUE(
        session->weights()
            .add_owned(slot.name, ir::tensor_type({1, 1}), std::as_bytes(std::span(zeros)).first(4))
            .ok());
    const auto again = session->weights().add_owned(slot.name, slot.type,
                                                    std::as_bytes(std::span(zeros)).first(bytes));
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->data(), memory->data());
    // A packed copy follows changed().
    ir::Type packed = slot.type;
    packed.layout = ir::Layout::kRows16;
    const auto copy = session->weights().get(slot.name, packed);
    ASSERT_TRUE(copy.ok());
    const float one = 1;
    std::memcpy(memory->data(), &one, sizeof one);
    EXPECT_EQ(0, std::memcmp((*copy)->bytes.data(), zeros.data(), sizeof one));
    ASSERT_TRUE(session->weights().changed(slot.name).ok());
    EXPECT_EQ(0, std::memcmp((*copy)->bytes.data(), &one, sizeof one));
  }
  EXPECT_EQ(row_major, 2);
  EXPECT_FALSE(session->weights().changed("no such tensor").ok());
  EXPECT_FALSE(session->weights().add_owned("x", ir::tensor_type({2, 2}), {}).ok());
}

TEST(Misfits, AreNamed) {
  const auto session = open(golden_folder("llama"), exact());
  const Adapter good = random_adapter(session->source(), "q,v", 4, 1);
  const auto error_of = [&](const Adapter& adapter) {
    const Status status = session->attach(adapter);
    EXPECT_FALSE(status.ok());
    return status.ok() ? "" : status.error().text();
  };
  Adapter other = good;
  other.architecture = "gemma3";
  EXPECT_NE(error_of(other).find("another kind of model"), std::string::npos);
  Adapter unknown = good;
  unknown.weights["blk.9.attn_q.weight"] = unknown.weights["blk.0.attn_q.weight"];
  EXPECT_NE(error_of(unknown).find("no weight 'blk.9.attn_q.weight'"), std::string::npos);
  Adapter shape = good;
  AdapterWeight& weight = shape.weights["blk.0.attn_q.weight"];
  weight.inputs = 32;
  weight.a.resize(4 * 32);
  EXPECT_NE(error_of(shape).find("does not fit the model's weight 'blk.0.attn_q.weight'"),
            std::string::npos);
  Adapter embedding = good;
  embedding.weights["token_embd.weight"] =
      AdapterWeight{1, 64, 160, std::vector<float>(64), std::vector<float>(160), {}};
  EXPECT_NE(error_of(embedding).find("embedding"), std::string::npos);
  Adapter broken = good;
  broken.weights["blk.0.attn_q.weight"].a[3] = NAN;
  EXPECT_NE(error_of(broken).find("no number"), std::string::npos);
  EXPECT_NE(error_of(Adapter{}).find("changes nothing"), std::string::npos);
  const auto tied = open(golden_folder("llama-rope3"), exact());
  Adapter output = random_adapter(tied->source(), "q", 1, 1);
  output.weights["output.weight"] =
      AdapterWeight{1, 64, 160, std::vector<float>(64), std::vector<float>(160), {}};
  const Status status = tied->attach(output);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().text().find("ties"), std::string::npos);
}

}  // namespace
}  // namespace hone::testing_adapters
