// SPDX-License-Identifier: Apache-2.0
#include "tune/images.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <memory>

namespace hone::tune {
namespace {

// A big-endian number of four bytes.
std::int64_t number_at(std::span<const std::uint8_t> bytes, std::size_t at) {
  std::int64_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | bytes[at + i];
  return value;
}

Error broken(const std::string& path, std::string found, std::string expected) {
  return Error{ErrorCode::kCorrupt, "this is no IDX file of bytes",          path, std::move(found),
               std::move(expected), "install or download the data set again"};
}

// The sizes in the header of an IDX file of bytes; what follows has their product.
Result<std::vector<std::int64_t>> header(const std::string& path,
                                         std::span<const std::uint8_t> bytes,
                                         std::size_t dimensions) {
  const std::size_t begin = 4 + 4 * dimensions;
  if (bytes.size() < begin) return broken(path, fmt::format("{} bytes", bytes.size()), "a header");
  const std::int64_t magic = number_at(bytes, 0);
  const std::int64_t wanted = 0x800 + static_cast<std::int64_t>(dimensions);  // 8: unsigned bytes
  if (magic != wanted) {
    return broken(path, fmt::format("{:#010x}", magic), fmt::format("{:#010x}", wanted));
  }
  std::vector<std::int64_t> sizes;
  auto left = static_cast<std::int64_t>(bytes.size() - begin);
  const std::int64_t there = left;
  for (std::size_t i = 0; i < dimensions; ++i) {
    sizes.push_back(number_at(bytes, 4 + 4 * i));
    if (sizes.back() < 1) return broken(path, "a size of 0", "at least 1");
    left /= sizes.back();
  }
  std::int64_t product = left == 1 ? 1 : 0;  // a product that overflows leaves 0
  for (const std::int64_t size : sizes) product *= size;
  if (product != there) {
    return broken(path, fmt::format("{} bytes after the header", there),
                  fmt::format("{}", fmt::join(sizes, " x ")));
  }
  return sizes;
}

}  // namespace

Result<std::vector<std::uint8_t>> read_gzip(const std::string& path, std::size_t largest) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (file == nullptr) {
    return Error{ErrorCode::kNotFound, "the file cannot be opened", path, "", "", ""};
  }
  std::vector<std::uint8_t> bytes;
  std::vector<std::uint8_t> portion(std::size_t{1} << 18);
  for (;;) {
    const int got = gzread(file.get(), portion.data(), static_cast<unsigned>(portion.size()));
    int code = Z_OK;
    const char* text = gzerror(file.get(), &code);
    if (got < 0 || code == Z_BUF_ERROR) {
      return Error{ErrorCode::kCorrupt, "the file does not unpack", path, text, "gzip", ""};
    }
    if (got == 0) return bytes;
    if (bytes.size() + static_cast<std::size_t>(got) > largest) {
      return Error{ErrorCode::kOutOfRange,
                   "the file is larger than expected when unpacked",
                   path,
                   "",
                   fmt::format("at most {} bytes", largest),
                   ""};
    }
    bytes.insert(bytes.end(), portion.begin(), portion.begin() + got);
  }
}

Result<Images> read_image_table(const std::string& path, const std::string& part,
                                std::int64_t height, std::int64_t width) {
  const auto bytes = read_gzip(path);
  if (!bytes) return bytes.error();
  Images out;
  out.height = height;
  out.width = width;
  const auto* at = reinterpret_cast<const char*>(bytes->data());
  const char* const end = at + bytes->size();
  const std::int64_t numbers = height * width + 1;
  std::vector<std::int32_t> row(static_cast<std::size_t>(numbers));
  for (std::int64_t line = 0; at < end; ++line) {
    for (std::int64_t i = 0; i < numbers; ++i) {
      const auto [next, wrong] = std::from_chars(at, end, row[static_cast<std::size_t>(i)]);
      const char wanted = i + 1 < numbers ? ',' : '\n';
      const bool fits = wrong == std::errc() && row[static_cast<std::size_t>(i)] >= 0 &&
                        row[static_cast<std::size_t>(i)] <= 255 &&
                        (next == end ? wanted == '\n' : *next == wanted);
      if (!fits) {
        return Error{ErrorCode::kCorrupt,
                     "this is no table of images",
                     path,
                     fmt::format("line {}, number {}", line + 1, i + 1),
                     fmt::format("{} numbers from 0 to 255 a line", numbers),
                     "download the data set again"};
      }
      at = next == end ? end : next + 1;
    }
    if ((line % 5 == 4) != (part == "t10k")) continue;
    for (std::size_t i = 0; i + 1 < row.size(); ++i) {
      out.pixels.push_back(static_cast<float>(row[i]) / 255);
    }
    out.labels.push_back(row.back());
  }
  return out;
}

Result<Images> read_images(const std::string& folder, const std::string& part,
                           std::int64_t shrink) {
  const std::string image_path = folder + "/" + part + "-images-idx3-ubyte.gz";
  const std::string label_path = folder + "/" + part + "-labels-idx1-ubyte.gz";
  const auto pixels = read_gzip(image_path);
  if (!pixels) return pixels.error();
  const auto labels = read_gzip(label_path);
  if (!labels) return labels.error();
  const auto sizes = header(image_path, *pixels, 3);
  if (!sizes) return sizes.error();
  const auto label_sizes = header(label_path, *labels, 1);
  if (!label_sizes) return label_sizes.error();
  const std::int64_t count = (*sizes)[0], rows = (*sizes)[1], columns = (*sizes)[2];
  if (count != (*label_sizes)[0]) {
    return broken(label_path, fmt::format("{} labels", (*label_sizes)[0]),
                  fmt::format("{}", count));
  }
  if (shrink < 1 || rows % shrink != 0 || columns % shrink != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "images cannot be made smaller by this factor",
                 image_path,
                 fmt::format("{}", shrink),
                 fmt::format("a divisor of {} and {}", rows, columns),
                 ""};
  }
  Images out;
  out.height = rows / shrink;
  out.width = columns / shrink;
  out.pixels.resize(static_cast<std::size_t>(count * out.height * out.width));
  const auto scale = 1.0F / static_cast<float>(255 * shrink * shrink);
  const std::uint8_t* from = pixels->data() + 16;
  for (std::int64_t row = 0; row < count * rows; ++row) {
    const std::int64_t to = row / rows * out.height + row % rows / shrink;
    for (std::int64_t column = 0; column < columns; ++column, ++from) {
      out.pixels[static_cast<std::size_t>(to * out.width + column / shrink)] +=
          scale * static_cast<float>(*from);
    }
  }
  out.labels.assign(labels->begin() + 8, labels->end());
  return out;
}

}  // namespace hone::tune
