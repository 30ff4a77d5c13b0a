// Labelled images and sentences: what a small file says, and what is wrong with a broken one.
// SPDX-License-Identifier: Apache-2.0
#include "tune/images.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "base/file.h"
#include "tune/class_tasks.h"
#include "tune/labelled_text.h"
#include "tune/scratch_folder.h"

namespace hone::tune {
namespace {

void put(const std::string& path, const std::vector<std::uint8_t>& bytes) {
  const gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

TEST(Images, MeansOfPixels) {
  const ScratchFolder folder;
  // Two images of 2 x 4.
  put(folder / "train-images-idx3-ubyte.gz",
      {0,   0,   8, 3, 0,   0,   0, 2,  0, 0, 0, 2, 0, 0, 0,   4,
       255, 255, 0, 0, 255, 255, 0, 51, 0, 0, 0, 0, 0, 0, 255, 255});
  put(folder / "train-labels-idx1-ubyte.gz", {0, 0, 8, 1, 0, 0, 0, 2, 7, 3});
  const auto images = read_images(folder.path(), "train", 2);
  ASSERT_TRUE(images.ok()) << images.error().text();
  EXPECT_EQ(images->height, 1);
  EXPECT_EQ(images->width, 2);
  EXPECT_EQ(images->labels, (std::vector<std::int32_t>{7, 3}));
  const std::vector<float> wanted = {1, 0.05F, 0, 0.5F};
  ASSERT_EQ(images->pixels.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(images->pixels[i], wanted[i], 1e-6);
  const auto tasks = class_tasks(*images, 10);
  ASSERT_EQ(tasks.size(), 4U);  // classes 0 to 7
  EXPECT_EQ(tasks[1].labels, (std::vector<std::int32_t>{3}));
}

TEST(Images, TablesOfNumbers) {
  const ScratchFolder folder;
  const auto write = [&](const std::string& text) {
    put(folder / "table.gz", {text.begin(), text.end()});
  };
  write("0,255,7\n51,0,1\n0,0,2\n0,0,3\n255,255,4\n0,0,5\n");
  const auto train = read_image_table(folder / "table.gz", "train", 1, 2);
  ASSERT_TRUE(train.ok()) << train.error().text();
  EXPECT_EQ(train->labels, (std::vector<std::int32_t>{7, 1, 2, 3, 5}));
  EXPECT_EQ(train->image(1)[0], 0.2F);
  const auto test = read_image_table(folder / "table.gz", "t10k", 1, 2);
  ASSERT_TRUE(test.ok()) << test.error().text();
  EXPECT_EQ(test->labels, (std::vector<std::int32_t>{4}));
  for (const char* broken : {"0,255\n", "0,256,7\n", "0,-1,7\n", "0,1,7,3\n", "a", "0,1,7\n0,"}) {
    write(broken);
    const auto read = read_image_table(folder / "table.gz", "train", 1, 2);
    ASSERT_FALSE(read.ok()) << broken;
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_EQ(read_image_table(folder / "none.gz", "train", 1, 2).error().code, ErrorCode::kNotFound);
}

TEST(Images, BrokenFilesAreErrors) {
  const ScratchFolder folder;
  EXPECT_EQ(read_images(folder.path(), "train").error().code, ErrorCode::kNotFound);
  put(folder / "train-labels-idx1-ubyte.gz", {0, 0, 8, 1, 0, 0, 0, 1, 7});
  for (const std::vector<std::uint8_t>& bytes :
       {std::vector<std::uint8_t>{0, 0, 8},
        {0, 0, 8, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9},
        {0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 9},
        {0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 9},
        {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9}}) {
    put(folder / "train-images-idx3-ubyte.gz", bytes);
    const auto images = read_images(folder.path(), "train");
    ASSERT_FALSE(images.ok());
    EXPECT_EQ(images.error().code, ErrorCode::kCorrupt);
  }
}

TEST(LabelledText, BothForms) {
  const ScratchFolder folder;
  const std::string path = folder / "text";
  ASSERT_TRUE(write_file_atomically(path, "1 a good one\n0 a bad one\n").ok());
  auto text = read_labelled_text(path);
  ASSERT_TRUE(text.ok()) << text.error().text();
  EXPECT_EQ(text->labels, (std::vector<std::int32_t>{1, 0}));
  EXPECT_EQ(text->texts[1], "a bad one");
  const LabelledText taken = take_every(*text, 2);
  EXPECT_EQ(taken.texts, std::vector<std::string>{"a good one"});
  EXPECT_EQ(text->count(), 1);
  ASSERT_TRUE(write_file_atomically(path, "sentence\tlabel\nfine \t1\r\n").ok());
  text = read_labelled_text(path);
  ASSERT_TRUE(text.ok()) << text.error().text();
  EXPECT_EQ(text->texts, std::vector<std::string>{"fine "});
  ASSERT_TRUE(write_file_atomically(path, "1 fine\nno label\n").ok());
  EXPECT_EQ(read_labelled_text(path).error().code, ErrorCode::kCorrupt);
}

TEST(LabelledText, HashedWordsHaveNormOne) {
  std::vector<float> a(64), b(64);
  hash_words("The cat  sat", a);
  hash_words("the cat sat", b);
  EXPECT_EQ(a, b);
  double squares = 0;
  for (const float value : a) squares += double{value} * double{value};
  EXPECT_NEAR(squares, 1, 1e-6);
  hash_words("sat cat the", b);  // other pairs
  EXPECT_NE(a, b);
  hash_words("", b);
  EXPECT_EQ(b, std::vector<float>(64));
}

TEST(ClassTasks, RateIsFoundByHalving) {
  const auto rate = rate_reaching(0.5, 1e-4, 1, 30, [](double at) -> Result<double> { return at; });
  ASSERT_TRUE(rate.ok());
  EXPECT_NEAR(*rate, 0.5, 1e-6);
}

}  // namespace
}  // namespace hone::tune
