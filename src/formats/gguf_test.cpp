// GGUF: what is written reads back; every broken file gives an error that says where and what.
// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <unistd.h>

namespace hone::formats {
namespace {

// Builds files byte by byte, so that each can be wrong in one way.
class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    const auto* first = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), first, first + sizeof value);
    return *this;
  }
  Bytes& u32(std::uint32_t value) { return put(value); }
  Bytes& u64(std::uint64_t value) { return put(value); }
  Bytes& raw(std::string_view text) {
    for (const char letter : text) put(letter);
    return *this;
  }
  Bytes& text(std::string_view text) { return u64(text.size()).raw(text); }
  Bytes& header(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
    return raw("GGUF").u32(version).u64(tensors).u64(entries);
  }
  Bytes& tensor(std::string_view name, std::vector<std::uint64_t> dimensions, std::uint32_t type,
                std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t extent : dimensions) u64(extent);
    return u32(type).u64(offset);
  }
  // Pads to the data's start and adds `size` bytes of it.
  Bytes& data(std::size_t size) {
    bytes_.resize((bytes_.size() + 31) / 32 * 32 + size);
    return *this;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

constexpr std::uint32_t kF32 = 0;
constexpr std::uint32_t kQ4_0 = 2;
constexpr std::uint32_t kText = 8;
constexpr std::uint32_t kArray = 9;

struct Hostile {
  const char* name;
  Bytes file;
  ErrorCode code;
  const char* says;   // part of `what`
  const char* found;  // part of `found` or `where`
};

std::vector<Hostile> hostile_files() {
  const auto one = [](Bytes bytes) { return bytes; };
  const ErrorCode corrupt = ErrorCode::kCorrupt;
  const ErrorCode unsupported = ErrorCode::kUnsupported;
  return {
      {"empty", Bytes(), corrupt, "not a GGUF file", "an empty file"},
      {"wrong_magic", one(Bytes().raw("GGML").data(64)), corrupt, "not a GGUF file", "'GGML'"},
      {"web_page", one(Bytes().raw("<!DOCTYPE html>").data(64)), corrupt, "not a GGUF", "'<!DO'"},
      {"big_endian", one(Bytes().raw("GGUF").u32(0x03000000).data(64)), unsupported, "big-endian",
       "0x03000000"},
      {"version_1", one(Bytes().header(0, 0, 1)), unsupported, "version", "version 1"},
      {"version_4", one(Bytes().header(0, 0, 4)), unsupported, "version", "version 4"},
      {"header_cut", one(Bytes().raw("GGUF").u32(3).u64(0)), corrupt, "ends inside the header",
       "bytes left"},
      {"many_tensors", one(Bytes().header(1ull << 62, 0).data(64)), corrupt, "more tensors",
       "4611686018427387904"},
      {"many_entries", one(Bytes().header(0, 1ull << 62).data(64)), corrupt, "more metadata",
       "4611686018427387904"},
      {"long_key", one(Bytes().header(0, 1).u64(~0ull).raw("0123456789")), corrupt,
       "longer than the file", "18446744073709551615"},
      {"long_text", one(Bytes().header(0, 1).text("k").u32(kText).u64(1000).raw("0123456789")),
       corrupt, "longer than the file", "1000"},
      {"value_cut", one(Bytes().header(0, 1).text("kkkkk").u32(12).u32(0)), corrupt,
       "ends inside metadata 'kkkkk'", "4 bytes left"},
      {"unknown_value_type", one(Bytes().header(0, 1).text("k").u32(13).u64(0)), corrupt,
       "unknown type", "type 13"},
      {"unknown_element_type",
       one(Bytes().header(0, 1).text("k").u32(kArray).u32(77).u64(1).u64(0)), corrupt,
       "elements of an unknown type", "type 77"},
      {"nested_array", one(Bytes().header(0, 1).text("k").u32(kArray).u32(kArray).u64(1).u64(0)),
       unsupported, "array of arrays", "type 9"},
      {"long_array", one(Bytes().header(0, 1).text("k").u32(kArray).u32(4).u64(1ull << 61).u64(0)),
       corrupt, "more elements", "2305843009213693952"},
      {"long_text_array",
       one(Bytes().header(0, 1).text("k").u32(kArray).u32(kText).u64(1ull << 60).u64(0)), corrupt,
       "more elements", "1152921504606846976"},
      {"duplicate_key",
       one(Bytes().header(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(2).data(0)), corrupt,
       "'k' is there twice", ""},
      {"alignment_zero", one(Bytes().header(0, 1).text("general.alignment").u32(4).u32(0)), corrupt,
       "general.alignment", "0"},
      {"alignment_odd", one(Bytes().header(0, 1).text("general.alignment").u32(4).u32(48)), corrupt,
       "general.alignment", "48"},
      {"alignment_text", one(Bytes().header(0, 1).text("general.alignment").u32(8).text("32")),
       unsupported, "general.alignment", "text"},
      {"five_dimensions", one(Bytes().header(1, 0).tensor("t", {1, 1, 1, 1, 1}, kF32, 0).data(64)),
       corrupt, "too many dimensions", "5 dimensions"},
      {"unknown_tensor_type", one(Bytes().header(1, 0).tensor("t", {32}, 23, 0).data(64)),
       unsupported, "'t' has an element type", "type 23 (IQ4_XS)"},
      {"unnamed_tensor_type", one(Bytes().header(1, 0).tensor("t", {32}, 1234, 0).data(64)),
       unsupported, "'t' has an element type", "type 1234"},
      {"overflow",
       one(Bytes().header(1, 0).tensor("t", {1ull << 31, 1ull << 31, 8}, kF32, 0).data(64)),
       corrupt, "overflow", "[8, 2147483648, 2147483648]"},
      {"huge_extent", one(Bytes().header(1, 0).tensor("t", {1ull << 63}, kF32, 0).data(64)),
       corrupt, "impossible extent", "9223372036854775808"},
      {"half_block", one(Bytes().header(1, 0).tensor("t", {48, 2}, kQ4_0, 0).data(64)), corrupt,
       "not whole blocks", "rows of 48"},
      {"outside", one(Bytes().header(1, 0).tensor("t", {64}, kF32, 0).data(255)), corrupt,
       "'t' lies outside of the file", "256 bytes"},
      {"offset_outside", one(Bytes().header(1, 0).tensor("t", {4}, kF32, ~31ull).data(64)), corrupt,
       "'t' lies outside of the file", "18446744073709551584"},
      {"no_data", one(Bytes().header(1, 0).tensor("t", {4}, kF32, 0)), corrupt,
       "'t' lies outside of the file", "16 bytes"},
      {"misaligned", one(Bytes().header(1, 0).tensor("t", {4}, kF32, 4).data(64)), corrupt,
       "not aligned", "offset 4"},
      {"duplicate_tensor",
       one(Bytes().header(2, 0).tensor("t", {4}, kF32, 0).tensor("t", {4}, kF32, 32).data(64)),
       corrupt, "'t' is there twice", ""},
      {"overlap",
       one(Bytes().header(2, 0).tensor("a", {16}, kF32, 0).tensor("b", {4}, kF32, 32).data(64)),
       corrupt, "'a' and 'b' overlap", "byte"},
  };
}

TEST(GgufHostile, EachErrorSaysWhereAndWhat) {
  for (const Hostile& hostile : hostile_files()) {
    const auto file = GgufFile::parse(hostile.file.bytes(), "broken.gguf");
    ASSERT_FALSE(file.ok()) << hostile.name;
    const Error& error = file.error();
    EXPECT_EQ(error.code, hostile.code) << hostile.name;
    EXPECT_NE(error.what.find(hostile.says), std::string::npos)
        << hostile.name << ": " << error.what;
    EXPECT_NE((error.found + error.where).find(hostile.found), std::string::npos)
        << hostile.name << ": " << error.text();
    EXPECT_NE(error.where.find("broken.gguf"), std::string::npos) << hostile.name;
  }
}

Metadata all_types() {
  Metadata metadata;
  metadata.set("general.architecture", std::string("llama"));
  metadata.set("a.u8", std::uint8_t{200});
  metadata.set("a.i8", std::int8_t{-3});
  metadata.set("a.u16", std::uint16_t{60000});
  metadata.set("a.i16", std::int16_t{-300});
  metadata.set("a.u32", std::uint32_t{4000000000});
  metadata.set("a.i32", std::int32_t{-70000});
  metadata.set("a.u64", std::uint64_t{1} << 63);
  metadata.set("a.i64", std::numeric_limits<std::int64_t>::min());
  metadata.set("a.f32", 0.5f);
  metadata.set("a.f64", 0.25);
  metadata.set("a.bool", true);
  metadata.set("a.texts", MetaArray(TextTable{"x", "", "a longer text than that"}));
  metadata.set("a.bools", MetaArray(std::vector<bool>{true, false, true}));
  metadata.set("a.floats", MetaArray(std::vector<float>{1.5f, -2.5f}));
  metadata.set("a.doubles", MetaArray(std::vector<double>{1.5}));
  metadata.set("a.u8s", MetaArray(std::vector<std::uint8_t>{1, 2, 255}));
  metadata.set("a.i64s", MetaArray(std::vector<std::int64_t>{-1, 2}));
  metadata.set("a.u64s", MetaArray(std::vector<std::uint64_t>{1, ~0ull}));
  metadata.set("a.none", MetaArray(std::vector<std::int32_t>{}));
  return metadata;
}

class GgufWrite : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() /
             ("hone_gguf_test_" + std::to_string(::getpid()) + ".gguf"))
                .string();
  }
  void TearDown() override {
    std::filesystem::remove(path_);
    EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
  }
  std::string path_;
};

TEST_F(GgufWrite, WhatIsWrittenReadsBack) {
  std::vector<std::byte> quantized(2 * 3 * 18);
  std::vector<std::byte> plain(10 * 4);
  for (std::size_t i = 0; i < quantized.size(); ++i) quantized[i] = static_cast<std::byte>(i);
  for (std::size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(200 - i);
  // One from memory, one streamed in two parts, one that follows both.
  const std::vector<GgufTensorToWrite> tensors = {
      {"q", DType::kQ4_0, {2, 96}, quantized, {}},
      {"streamed",
       DType::kF32,
       {5, 2},
       {},
       [&](const Append& append) -> Status {
         HONE_RETURN_IF_ERROR(append(std::span(plain).first(7)));
         return append(std::span(plain).subspan(7));
       }},
      {"last", DType::kI8, {1}, std::span(plain).first(1), {}}};
  const Status written = write_gguf(path_, all_types(), tensors);
  ASSERT_TRUE(written.ok()) << written.error().text();

  auto opened = GgufFile::open(path_);
  ASSERT_TRUE(opened.ok()) << opened.error().text();
  const GgufFile file = std::move(*opened);  // records must outlive the move
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.alignment(), 32u);
  ASSERT_EQ(file.tensors().size(), 3u);
  const TensorRecord* q = file.find("q");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->shape, (std::vector<std::int64_t>{2, 96}));
  EXPECT_EQ(q->elements(), 192);
  EXPECT_TRUE(std::equal(q->data.begin(), q->data.end(), quantized.begin(), quantized.end()));
  EXPECT_EQ(q->data.data(), file.file().bytes().data() + q->file_offset);
  const TensorRecord* streamed = file.find("streamed");
  ASSERT_NE(streamed, nullptr);
  EXPECT_TRUE(std::equal(streamed->data.begin(), streamed->data.end(), plain.begin(), plain.end()));
  EXPECT_EQ(file.find("absent"), nullptr);

  const Metadata expected = all_types();
  ASSERT_EQ(file.metadata().size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(file.metadata().entries()[i].key, expected.entries()[i].key);
    EXPECT_EQ(file.metadata().entries()[i].value, expected.entries()[i].value) << i;
  }
}

TEST_F(GgufWrite, AlignmentIsObeyedAndNoTensorsAreFine) {
  Metadata metadata;
  metadata.set("general.alignment", std::uint32_t{128});
  const std::vector<std::byte> data(4);
  const std::vector<GgufTensorToWrite> tensors = {{"a", DType::kF32, {1}, data, {}},
                                                  {"b", DType::kF32, {1}, data, {}}};
  ASSERT_TRUE(write_gguf(path_, metadata, tensors).ok());
  const auto file = GgufFile::open(path_);
  ASSERT_TRUE(file.ok()) << file.error().text();
  EXPECT_EQ(file->find("b")->file_offset % 128, 0u);
  EXPECT_EQ(file->find("b")->file_offset - file->find("a")->file_offset, 128u);
  ASSERT_TRUE(write_gguf(path_, all_types(), {}).ok());
  const auto vocabulary = GgufFile::open(path_);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.error().text();
  EXPECT_TRUE(vocabulary->tensors().empty());
}

TEST_F(GgufWrite, BadTensorsAreRefusedAndTheOldFileStays) {
  ASSERT_TRUE(write_gguf(path_, all_types(), {}).ok());
  const std::vector<std::byte> data(64);
  const auto failing = [](const Append&) -> Status {
    return Error{ErrorCode::kIo, "the source failed", "", "", "", ""};
  };
  const auto too_few = [&](const Append& append) { return append(std::span(data).first(4)); };
  const std::vector<std::vector<GgufTensorToWrite>> bad = {
      {{"", DType::kF32, {16}, data, {}}},
      {{std::string(64, 'n'), DType::kF32, {16}, data, {}}},
      {{"u8", DType::kU8, {64}, data, {}}},
      {{"dims", DType::kF32, {1, 1, 1, 1, 16}, data, {}}},
      {{"half", DType::kQ4_0, {48}, data, {}}},
      {{"negative", DType::kF32, {-1}, data, {}}},
      {{"size", DType::kF32, {15}, data, {}}},
      {{"twice", DType::kF32, {16}, data, {}}, {"twice", DType::kF32, {16}, data, {}}},
      {{"short", DType::kF32, {16}, {}, too_few}},
      {{"failing", DType::kF32, {16}, {}, failing}}};
  for (const auto& tensors : bad) {
    const Status status = write_gguf(path_, Metadata(), tensors);
    ASSERT_FALSE(status.ok()) << tensors[0].name;
    EXPECT_NE(status.error().where.find(path_), std::string::npos) << status.error().text();
    const auto old = GgufFile::open(path_);
    ASSERT_TRUE(old.ok());
    EXPECT_EQ(old->metadata().size(), all_types().size());
  }
}

TEST_F(GgufWrite, EveryTruncationIsAnError) {
  const std::vector<std::byte> data(64);
  const std::vector<GgufTensorToWrite> tensors = {{"a", DType::kF32, {16}, data, {}},
                                                  {"b", DType::kF16, {32}, data, {}}};
  ASSERT_TRUE(write_gguf(path_, all_types(), tensors).ok());
  const auto whole = read_file(path_);
  ASSERT_TRUE(whole.ok());
  const auto bytes = std::as_bytes(std::span(*whole));
  ASSERT_TRUE(GgufFile::parse(bytes, "whole").ok());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    // A copy of that very size, so that a sanitizer sees a read past its end.
    const std::vector<std::byte> cut(bytes.begin(),
                                     bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto file = GgufFile::parse(cut, "cut");
    ASSERT_FALSE(file.ok()) << size;
    ASSERT_EQ(file.error().code, ErrorCode::kCorrupt) << size;
  }
}

TEST(Gguf, VersionTwoReadsTheSame) {
  Bytes bytes;
  bytes.header(1, 1, 2).text("k").u32(kText).text("v").tensor("t", {4, 2}, kF32, 0).data(32);
  const auto file = GgufFile::parse(bytes.bytes(), "v2");
  ASSERT_TRUE(file.ok()) << file.error().text();
  EXPECT_EQ(file->version(), 2u);
  EXPECT_EQ(file->find("t")->shape, (std::vector<std::int64_t>{2, 4}));
  EXPECT_EQ(*file->metadata().text("k"), "v");
}

TEST(Gguf, NamesFromTheFileCannotHarmATerminal) {
  Bytes bytes;
  bytes.header(1, 0).tensor("\x1b[2J", {48}, kQ4_0, 0).data(32);
  const auto file = GgufFile::parse(bytes.bytes(), "v3");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().text().find('\x1b'), std::string::npos);
  EXPECT_NE(file.error().text().find("\\x1b[2J"), std::string::npos);
}

TEST(GgufMetadata, GettersConvertOrSayWhyNot) {
  const Metadata metadata = all_types();
  EXPECT_EQ(*metadata.integer("a.u8"), 200);
  EXPECT_EQ(*metadata.integer("a.i64"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(metadata.integer("a.u64").error().code, ErrorCode::kOutOfRange);
  EXPECT_EQ(metadata.integer("a.f32").error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(metadata.integer("a.bool").error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(*metadata.number("a.f32"), 0.5);
  EXPECT_EQ(*metadata.number("a.i16"), -300.0);
  EXPECT_TRUE(*metadata.boolean("a.bool"));
  EXPECT_EQ(metadata.text("absent").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(*metadata.integer_or("absent", 7), 7);
  EXPECT_FALSE(metadata.integer_or("a.texts", 7).ok());
  EXPECT_EQ((*metadata.texts("a.texts"))->size(), 3u);
  EXPECT_EQ(*metadata.integers("a.u8s"), (std::vector<std::int64_t>{1, 2, 255}));
  EXPECT_EQ(metadata.integers("a.u64s").error().code, ErrorCode::kOutOfRange);
  EXPECT_EQ(*metadata.floats("a.doubles"), std::vector<float>{1.5f});
  EXPECT_EQ(metadata.booleans("a.bools")->size(), 3u);
  const Error wrong = metadata.floats("a.texts").error();
  EXPECT_EQ(wrong.found, "array of text (3)");
  EXPECT_NE(wrong.text().find("a.texts"), std::string::npos);
}

TEST(GgufMetadata, SetReplacesAndEraseKeepsTheOrder) {
  Metadata metadata;
  metadata.set("a", std::uint32_t{1});
  metadata.set("b", std::uint32_t{2});
  metadata.set("c", std::uint32_t{3});
  metadata.set("a", std::uint32_t{4});
  metadata.erase("b");
  metadata.erase("absent");
  ASSERT_EQ(metadata.size(), 2u);
  EXPECT_EQ(*metadata.integer("a"), 4);
  EXPECT_EQ(*metadata.integer("c"), 3);
  EXPECT_FALSE(metadata.has("b"));
  EXPECT_EQ(meta_value_text(MetaArray(std::vector<int>{1, 2, 3}), 2), "[1, 2, …]");
}

// A real file, written again, is the same file byte for byte.
TEST_F(GgufWrite, ARealFileRoundTrips) {
  const char* cache = std::getenv("HONE_CACHE");
  const char* home = std::getenv("HOME");
  const std::string folder = cache != nullptr  ? std::string(cache)
                             : home != nullptr ? std::string(home) + "/.cache/hone"
                                               : std::string();
  const std::string model = folder + "/models/smollm2-135m-instruct-q4_1.gguf";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model << ": `hone fetch smollm2`";
  const auto file = GgufFile::open(model);
  ASSERT_TRUE(file.ok()) << file.error().text();
  EXPECT_EQ(*file->metadata().text("general.architecture"), "llama");
  std::vector<GgufTensorToWrite> tensors;
  for (const TensorRecord& record : file->tensors()) {
    tensors.push_back({record.name, record.dtype, record.shape, record.data, {}});
  }
  ASSERT_TRUE(write_gguf(path_, file->metadata(), tensors).ok());
  const auto copy = MappedFile::open(path_);
  ASSERT_TRUE(copy.ok());
  const auto original = file->file().bytes();
  ASSERT_EQ(copy->bytes().size(), original.size());
  EXPECT_EQ(std::memcmp(copy->bytes().data(), original.data(), original.size()), 0);
}

}  // namespace
}  // namespace hone::formats
