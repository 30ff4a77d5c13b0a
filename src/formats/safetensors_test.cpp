// Safetensors: files and shards read back; every broken file gives an error that says what and
// where.
// SPDX-License-Identifier: Apache-2.0
#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <unistd.h>

namespace hone::formats {
namespace {

std::vector<std::byte> file_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::vector<std::byte> bytes(8 + header.size() + data_bytes);
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape +
         "],\"data_offsets\":[" + offsets + "]}";
}

struct Hostile {
  const char* name;
  std::vector<std::byte> file;
  ErrorCode code;
  const char* says;  // part of the error's text
};

std::vector<Hostile> hostile_files() {
  const ErrorCode corrupt = ErrorCode::kCorrupt;
  std::vector<std::byte> long_header = file_of("{}", 0);
  long_header[7] = std::byte{0x80};
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "{\"shape\":";
  return {
      {"empty", {}, corrupt, "not a safetensors file"},
      {"header_beyond_file", long_header, corrupt, "header is longer"},
      {"not_json", file_of("{\"a\":", 0), corrupt, "does not parse"},
      {"not_utf8", file_of("{\"\xff\":1}", 0), corrupt, "does not parse"},
      {"trailing_text", file_of("{} x", 0), corrupt, "does not parse"},
      {"list", file_of("[1,2]", 0), corrupt, "wrong place"},
      {"number", file_of("5", 0), corrupt, "wrong kind"},
      {"tensor_is_number", file_of("{\"a\":5}", 0), corrupt, "wrong kind"},
      {"deep", file_of(deep, 0), corrupt, "nested too deeply"},
      {"incomplete", file_of("{\"a\":{\"dtype\":\"U8\"}}", 0), corrupt, "incomplete"},
      {"one_offset", file_of("{" + tensor("a", "U8", "1", "0") + "}", 4), corrupt, "incomplete"},
      {"three_offsets", file_of("{" + tensor("a", "U8", "1", "0,1,2") + "}", 4), corrupt,
       "wrong kind"},
      {"twice",
       file_of("{" + tensor("a", "U8", "1", "0,1") + "," + tensor("a", "U8", "1", "1,2") + "}", 4),
       corrupt, "'a' is there twice"},
      {"negative", file_of("{" + tensor("a", "U8", "-1", "0,1") + "}", 4), corrupt, "-1"},
      {"fraction", file_of("{" + tensor("a", "U8", "1.5", "0,1") + "}", 4), corrupt, "1.5"},
      {"huge_number", file_of("{" + tensor("a", "U8", "1e999", "0,1") + "}", 4), corrupt, "parse"},
      {"huge_extent", file_of("{" + tensor("a", "U8", "18446744073709551615", "0,1") + "}", 4),
       corrupt, "impossible shape"},
      {"overflow", file_of("{" + tensor("a", "F32", "4294967296,4294967296", "0,4") + "}", 4),
       corrupt, "size that is not its shape's"},
      {"wrong_size", file_of("{" + tensor("a", "F32", "2", "0,4") + "}", 8), corrupt,
       "8 for [2] of F32"},
      {"falling", file_of("{" + tensor("a", "U8", "1", "2,1") + "}", 4), corrupt, "outside"},
      {"outside", file_of("{" + tensor("a", "U8", "5", "0,5") + "}", 4), corrupt, "outside"},
      {"overlap",
       file_of("{" + tensor("a", "U8", "2", "0,2") + "," + tensor("b", "U8", "2", "1,3") + "}", 4),
       corrupt, "'a' and 'b' overlap"},
      {"bool", file_of("{" + tensor("a", "BOOL", "1", "0,1") + "}", 4), ErrorCode::kUnsupported,
       "BOOL"},
      {"unknown_field", file_of("{\"a\":{\"colour\":\"red\"}}", 0), corrupt, "colour"},
      {"metadata_number", file_of("{\"__metadata__\":{\"a\":1}}", 0), corrupt, "__metadata__"},
  };
}

TEST(SafetensorsHostile, EachErrorSaysWhereAndWhat) {
  for (const Hostile& hostile : hostile_files()) {
    const auto file = Safetensors::parse(hostile.file, "broken.safetensors");
    ASSERT_FALSE(file.ok()) << hostile.name;
    EXPECT_EQ(file.error().code, hostile.code) << hostile.name;
    EXPECT_NE(file.error().text().find(hostile.says), std::string::npos)
        << hostile.name << ": " << file.error().text();
    EXPECT_NE(file.error().where.find("broken.safetensors"), std::string::npos) << hostile.name;
  }
}

class SafetensorsFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("hone_safetensors_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    for (std::size_t i = 0; i < data_.size(); ++i) data_[i] = static_cast<std::byte>(i);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const char* name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
  std::vector<std::byte> data_ = std::vector<std::byte>(64);
};

TEST_F(SafetensorsFiles, WhatIsWrittenReadsBackAligned) {
  const std::vector<SafetensorsTensorToWrite> tensors = {
      {"byte", DType::kU8, {1}, std::span(data_).first(1), {}},
      {"half \"quoted\" é",
       DType::kBF16,
       {3, 2},
       {},
       [&](const Append& append) -> Status {
         HONE_RETURN_IF_ERROR(append(std::span(data_).first(5)));
         return append(std::span(data_).subspan(5, 7));
       }},
      {"scalar", DType::kF32, {}, std::span(data_).first(4), {}},
      {"wide", DType::kI64, {2}, std::span(data_).first(16), {}},
      {"none", DType::kF32, {0, 7}, {}, {}}};
  const std::string file = path("model.safetensors");
  const Status written = write_safetensors(file, tensors, {{"format", "pt"}, {"a\n", "\t"}});
  ASSERT_TRUE(written.ok()) << written.error().text();
  const auto read = Safetensors::open(folder_.string());
  ASSERT_TRUE(read.ok()) << read.error().text();
  ASSERT_EQ(read->tensors().size(), tensors.size());
  for (const SafetensorsTensorToWrite& expected : tensors) {
    const TensorRecord* record = read->find(expected.name);
    ASSERT_NE(record, nullptr) << expected.name;
    EXPECT_EQ(record->dtype, expected.dtype);
    EXPECT_EQ(record->shape, expected.shape);
    EXPECT_TRUE(std::equal(record->data.begin(), record->data.end(), data_.begin()));
    EXPECT_EQ(record->file_offset % static_cast<std::size_t>(dtype_info(expected.dtype).bytes), 0u);
  }
  EXPECT_EQ(read->find("half \"quoted\" é")->data.size(), 12u);
  EXPECT_EQ(read->metadata().at("format"), "pt");
  EXPECT_EQ(read->metadata().at("a\n"), "\t");
}

TEST_F(SafetensorsFiles, EveryTruncationIsAnError) {
  const std::vector<SafetensorsTensorToWrite> tensors = {{"a", DType::kF32, {16}, data_, {}}};
  ASSERT_TRUE(write_safetensors(path("a.safetensors"), tensors).ok());
  const auto whole = read_file(path("a.safetensors"));
  ASSERT_TRUE(whole.ok());
  const auto bytes = std::as_bytes(std::span(*whole));
  ASSERT_TRUE(Safetensors::parse(bytes, "whole").ok());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> cut(bytes.begin(),
                                     bytes.begin() + static_cast<std::ptrdiff_t>(size));
    ASSERT_FALSE(Safetensors::parse(cut, "cut").ok()) << size;
  }
}

TEST_F(SafetensorsFiles, BadTensorsAreRefused) {
  const auto too_many = [&](const Append& append) { return append(data_); };
  const std::vector<std::vector<SafetensorsTensorToWrite>> bad = {
      {{"", DType::kF32, {16}, data_, {}}},
      {{"__metadata__", DType::kF32, {16}, data_, {}}},
      {{"\xff", DType::kF32, {16}, data_, {}}},
      {{"q", DType::kQ4_0, {32}, std::span(data_).first(18), {}}},
      {{"size", DType::kF32, {15}, data_, {}}},
      {{"long", DType::kF32, {2}, {}, too_many}},
      {{"twice", DType::kF32, {16}, data_, {}}, {"twice", DType::kF32, {16}, data_, {}}}};
  for (const auto& tensors : bad) {
    const Status status = write_safetensors(path("bad.safetensors"), tensors);
    EXPECT_FALSE(status.ok()) << tensors[0].name;
    EXPECT_FALSE(std::filesystem::exists(path("bad.safetensors"))) << tensors[0].name;
  }
}

TEST_F(SafetensorsFiles, ShardsAreOneModel) {
  const std::vector<SafetensorsTensorToWrite> first = {{"a", DType::kF32, {16}, data_, {}}};
  const std::vector<SafetensorsTensorToWrite> second = {{"b", DType::kF16, {4, 8}, data_, {}}};
  ASSERT_TRUE(write_safetensors(path("m-1.safetensors"), first).ok());
  ASSERT_TRUE(write_safetensors(path("m-2.safetensors"), second).ok());
  const std::string index = path("model.safetensors.index.json");
  const auto with_index = [&](const char* text) {
    EXPECT_TRUE(write_file_atomically(index, text).ok());
    return Safetensors::open(folder_.string());
  };
  const auto model = with_index(
      R"({"metadata":{"total_size":128,"more":[{"x":[1]}]},
          "weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  ASSERT_TRUE(model.ok()) << model.error().text();
  ASSERT_EQ(model->files().size(), 2u);
  const TensorRecord* b = model->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->file, 1u);
  EXPECT_EQ(b->data.data(), model->files()[1].bytes().data() + b->file_offset);

  const auto expect_error = [&](const char* text, const char* says) {
    const auto broken = with_index(text);
    ASSERT_FALSE(broken.ok()) << text;
    EXPECT_NE(broken.error().text().find(says), std::string::npos) << broken.error().text();
  };
  expect_error(R"({"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors"}})", "another file");
  expect_error(R"({"weight_map":{"c":"m-1.safetensors"}})", "'c' is missing");
  expect_error(R"({"weight_map":{"a":"m-3.safetensors"}})", "m-3.safetensors");
  expect_error(R"({"weight_map":{"a":"../m-1.safetensors"}})", "cannot be");
  expect_error(R"({"weight_map":{"a":"m-1.safetensors","a":"m-2.safetensors"}})", "twice");
  expect_error(R"({"weight_map":{"a":{"b":"m-1.safetensors"}}})", "nested");
  expect_error(R"({"weight_map":["m-1.safetensors"]})", "wrong kind");
  expect_error(R"({"weight_map":{}})", "no tensors");
  expect_error(R"({"other":1})", "no tensors");
  expect_error("[]", "wrong kind");
  expect_error("", "does not parse");
}

TEST_F(SafetensorsFiles, AFolderWithoutWeightsSaysWhatItLooksFor) {
  const auto model = Safetensors::open(folder_.string());
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().code, ErrorCode::kNotFound);
  EXPECT_NE(model.error().text().find("model.safetensors.index.json"), std::string::npos);
  EXPECT_EQ(Safetensors::open(path("absent.safetensors")).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace hone::formats
