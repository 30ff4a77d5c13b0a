// Labelled images in the IDX format of MNIST (LeCun et al. 1998, "The MNIST database"), gzipped.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace hone::tune {

struct Images {
  std::int64_t height = 0, width = 0;
  std::vector<float> pixels;         // (N, height * width) in [0, 1]
  std::vector<std::int32_t> labels;  // (N)

  std::int64_t count() const { return std::ssize(labels); }
  std::span<const float> image(std::int64_t index) const {
    const auto size = static_cast<std::size_t>(height * width);
    return std::span(pixels).subspan(static_cast<std::size_t>(index) * size, size);
  }
};

// <folder>/<part>-images-idx3-ubyte.gz and <part>-labels-idx1-ubyte.gz; part is "train" or "t10k".
// Each pixel is the mean of `shrink` times `shrink` of the file's. kNotFound where a file is
// absent, kCorrupt where sizes do not fit the bytes.
Result<Images> read_images(const std::string& folder, const std::string& part,
                           std::int64_t shrink = 1);

// A gzipped table, one image a line: its pixels from 0 to 255, row by row, and its label, by
// commas. `part`: "train" or "t10k" as of the other form; every fifth line is of the latter. Errors
// as there.
Result<Images> read_image_table(const std::string& path, const std::string& part,
                                std::int64_t height, std::int64_t width);

// The bytes of a gzipped file, at most `largest` of them.
Result<std::vector<std::uint8_t>> read_gzip(const std::string& path,
                                            std::size_t largest = std::size_t{1} << 28);

}  // namespace hone::tune
