// Sessions that map packed weights: the same logits as those that pack, before and after the
// weights move into huge pages, and after a patch.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "../support/models.h"

namespace hone::testing_models {
namespace {

namespace fs = std::filesystem;
using engine::Session;
using engine::SessionOptions;

class PackedSessions : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "hone-packed-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    model_ = quantized_copy("llama", DType::kQ4_1);
    ASSERT_NE(model_, "");
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<Session> open(bool with_folder) const {
    SessionOptions options;
    options.threads = 2;
    options.context = 64;
    if (with_folder) options.packed_folder = folder_;
    auto session = Session::open(model_, options);
    EXPECT_TRUE(session.ok()) << (session.ok() ? "" : session.error().text());
    return *std::move(session);
  }

  // Logits of three prompts, one after the other: the weights move after the first.
  static std::vector<std::vector<float>> logits(Session& session) {
    std::vector<std::vector<float>> out;
    const auto tokens = golden_tokens("llama");
    for (std::size_t skip = 0; skip < 3; ++skip) {
      const auto sequence = session.begin();
      const auto found = session.prefill(sequence, std::span(tokens).subspan(skip));
      EXPECT_TRUE(found.ok());
      if (found) out.emplace_back(found->begin(), found->end());
      session.end(sequence);
    }
    return out;
  }

  std::string folder_;
  std::string model_;
};

TEST_F(PackedSessions, GiveTheSameLogits) {
  const auto plain = open(false);
  const auto expected = logits(*plain);
  const auto first = open(true);
  EXPECT_EQ(logits(*first), expected);
  const auto kept = first->keep_packed(0);
  ASSERT_TRUE(kept.ok()) << kept.error().text();
  ASSERT_TRUE(*kept);
  const auto second = open(true);
  EXPECT_EQ(logits(*second), expected);
  const auto again = second->keep_packed(0);
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(*again);  // nothing was packed
}

TEST_F(PackedSessions, APatchIsNotUndone) {
  const auto first = open(true);
  logits(*first);
  ASSERT_TRUE(first->keep_packed(0).ok());
  const std::string name = "blk.0.ffn_down.weight";
  const auto plain = open(false);
  const auto mapped = open(true);
  for (const auto& session : {plain.get(), mapped.get()}) {
    ASSERT_TRUE(session->prepare(8, 1, 1).ok());  // bound, and nothing moved yet
    const formats::TensorRecord* tensor = session->source().find(name);
    ASSERT_NE(tensor, nullptr);
    std::vector<std::byte> bytes(tensor->data.begin(), tensor->data.end());
    const auto block = static_cast<std::ptrdiff_t>(dtype_info(tensor->dtype).bytes);
    std::rotate(bytes.begin(), bytes.begin() + block, bytes.end());
    ASSERT_TRUE(session->weights().patch(name, bytes).ok());
  }
  const auto expected = logits(*plain);
  EXPECT_EQ(logits(*mapped), expected);
  EXPECT_NE(logits(*open(false)), expected);
  EXPECT_FALSE(*mapped->keep_packed(0));  // patched weights are nobody else's
}

}  // namespace
}  // namespace hone::testing_models
