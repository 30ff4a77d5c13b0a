// tiny/hone.cpp on a real model: tokens and logits against llama.cpp's and transformers'.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(HONE_SOURCE_DIR) / "tests/golden/models/smollm2-135m-q4_1";

// Where `hone fetch` keeps models.
fs::path model_file(const std::string& name) {
  const char* cache = std::getenv("HONE_CACHE");
  const char* home = std::getenv("HOME");
  const fs::path root =
      cache != nullptr ? fs::path(cache) : fs::path(home != nullptr ? home : "") / ".cache/hone";
  return root / "models" / name;
}

fs::path tiny_program() { return fs::path(HONE_BINARY).parent_path() / "tiny"; }

// The standard output of `tiny ARGUMENTS`; each argument is quoted for the shell.
std::string output_of_tiny(const std::vector<std::string>& arguments) {
  std::string command = "'" + tiny_program().string() + "'";
  for (const std::string& argument : arguments) command += " '" + argument + "'";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string out;
  std::vector<char> buffer(1 << 16);
  while (pipe != nullptr) {
    const size_t count = fread(buffer.data(), 1, buffer.size(), pipe.get());
    if (count == 0) break;
    out.append(buffer.data(), count);
  }
  return out;
}

class TinyOnRealModel : public testing::Test {
 protected:
  void SetUp() override {
    golden_ = nlohmann::json::parse(std::ifstream(kGolden.string() + ".json"));
    model_ = model_file(golden_["file"]);
    if (!fs::exists(model_)) GTEST_SKIP() << model_ << " is absent; `hone fetch` brings it";
    ASSERT_TRUE(fs::exists(tiny_program())) << "build the target tiny first";
  }

  nlohmann::json golden_;
  fs::path model_;
};

TEST_F(TinyOnRealModel, CutsTheTextAsLlamaCppDoes) {
  std::istringstream out(output_of_tiny({model_.string(), "--tokens", golden_["text"]}));
  std::vector<int> tokens;
  for (int token = 0; out >> token;) tokens.push_back(token);
  EXPECT_EQ(tokens, golden_["tokens"].get<std::vector<int>>());
}

TEST_F(TinyOnRealModel, GivesTheLogitsOfTransformers) {
  std::vector<std::string> arguments{model_.string(), "--logits"};
  for (int token : golden_["tokens"]) arguments.push_back(std::to_string(token));
  std::istringstream out(output_of_tiny(arguments));
  std::vector<std::vector<float>> rows;
  for (std::string line; std::getline(out, line);) {
    std::istringstream numbers(line);
    rows.emplace_back();
    for (float value = 0; numbers >> value;) rows.back().push_back(value);
  }
  const size_t vocabulary = golden_["vocabulary"];
  ASSERT_EQ(rows.size(), golden_["tokens"].size());
  for (const auto& row : rows) ASSERT_EQ(row.size(), vocabulary);

  // Two f32 evaluations of the same weights in another order of summation; the largest difference
  // seen is 5e-5 on logits of the order of ten.
  constexpr double kTolerance = 5e-4;
  const size_t stride = golden_["stride"];
  const size_t samples = golden_["samples"];
  const std::vector<size_t> positions = golden_["positions"];
  std::vector<float> expected(positions.size() * samples);
  std::ifstream file(kGolden.string() + ".bin", std::ios::binary);
  file.read(reinterpret_cast<char*>(expected.data()),
            static_cast<std::streamsize>(expected.size() * sizeof(float)));
  ASSERT_TRUE(file);
  double worst = 0;
  for (size_t p = 0; p < positions.size(); ++p) {
    for (size_t s = 0; s < samples; ++s) {
      const double difference = rows[positions[p]][s * stride] - expected[p * samples + s];
      worst = std::max(worst, std::abs(difference));
    }
  }
  EXPECT_LT(worst, kTolerance);
  for (size_t t = 0; t < rows.size(); ++t) {
    if (golden_["lead"][t] < 2 * kTolerance) continue;  // too close to call
    const auto top = std::max_element(rows[t].begin(), rows[t].end()) - rows[t].begin();
    EXPECT_EQ(top, golden_["argmax"][t].get<std::ptrdiff_t>()) << "position " << t;
  }
}

}  // namespace
