// Packed weights in a file: found as they were written, and never believed when anything changed.
// SPDX-License-Identifier: Apache-2.0
#include "engine/packed_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/random.h"
#include "quant/codec.h"

namespace hone::engine {
namespace {

namespace fs = std::filesystem;

struct Matrix {
  std::string name;
  kernels::PackedLayout layout;
  std::vector<std::byte> source;
  std::vector<std::byte> packed;

  Matrix(std::string called, DType dtype, std::int64_t rows, std::int64_t columns)
      : name(std::move(called)), layout(*kernels::packed_layout(dtype, rows, columns)) {
    Random random(static_cast<std::uint64_t>(rows));
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    for (float& value : values) value = random.normal();
    source = *quant::quantize(dtype, values);
    packed.resize(static_cast<std::size_t>(layout.total_bytes));
    kernels::pack_panels(layout, source, 0, layout.panels(), packed);
  }
  PackedFile::Tensor tensor() const { return {name, layout, packed, {}}; }
};

class PackedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "hone-packed-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    model_ = folder_ + "/model.gguf";
    ASSERT_TRUE(write_file_atomically(model_, "a model").ok());
    const std::vector tensors{a_.tensor(), b_.tensor()};
    const auto written = PackedFile::write(folder_, model_, tensors);
    ASSERT_TRUE(written.ok()) << written.error().text();
    if (!*written) GTEST_SKIP() << "the disk is nearly full";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::optional<PackedFile> open() const { return PackedFile::open(folder_, model_); }
  void write_at(std::size_t offset, char byte) const {
    std::fstream file(packed_path(folder_, model_), std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  std::string folder_;
  std::string model_;
  Matrix a_{"a", DType::kQ4_1, 40, 96};
  Matrix b_{"b", DType::kQ6_K, 17, 512};
};

TEST_F(PackedFileTest, GivesWhatWasWritten) {
  const auto file = open();
  ASSERT_TRUE(file);
  for (const Matrix* matrix : {&a_, &b_}) {
    EXPECT_TRUE(std::ranges::equal(file->find(matrix->name, matrix->layout, matrix->source),
                                   matrix->packed));
  }
  EXPECT_TRUE(file->find("c", a_.layout, a_.source).empty());
  EXPECT_TRUE(file->find("a", b_.layout, b_.source).empty());
}

TEST_F(PackedFileTest, OfAnotherModelIsNothing) {
  EXPECT_FALSE(PackedFile::open(folder_, folder_ + "/other.gguf"));
  // The same path and size, other bytes.
  ASSERT_TRUE(write_file_atomically(model_, "b model").ok());
  EXPECT_FALSE(open());
}

TEST_F(PackedFileTest, DamageIsNotBelieved) {
  const std::string path = packed_path(folder_, model_);
  // The other bytes of a tensor's first panel: the model was another.
  const auto file = open();
  ASSERT_TRUE(file);
  std::vector<std::byte> changed = a_.source;
  changed[0] ^= std::byte{1};
  EXPECT_TRUE(file->find("a", a_.layout, changed).empty());
  const auto size = fs::file_size(path);
  fs::resize_file(path, size - 64);
  EXPECT_FALSE(open());
  for (const std::size_t cut : {std::size_t{0}, std::size_t{7}, std::size_t{100}}) {
    fs::resize_file(path, cut);
    EXPECT_FALSE(open()) << cut;
  }
}

// Any byte of the header may be any other: something is found as it was, or nothing.
TEST_F(PackedFileTest, AnyHeaderIsSafe) {
  Random random(3);
  const auto whole = *read_file(packed_path(folder_, model_));
  for (int i = 0; i < 500; ++i) {
    const std::size_t at = random.below(400);
    write_at(at, static_cast<char>(random.below(256)));
    if (const auto file = open()) {
      for (const Matrix* matrix : {&a_, &b_}) {
        const auto found = file->find(matrix->name, matrix->layout, matrix->source);
        EXPECT_TRUE(found.empty() || found.size() == matrix->packed.size());
      }
    }
    write_at(at, whole[at]);
  }
  EXPECT_TRUE(open());
}

}  // namespace
}  // namespace hone::engine
