// Tensors between Hugging Face's arrangement and GGUF's (models/family.h, Change).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"
#include "models/family.h"

namespace hone::engine {

struct HeadCounts {
  std::int64_t query = 0;
  std::int64_t key = 0;
};

struct ChangedTensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;
};

// A copy in the other arrangement. kPlusOne gives f32 of any plain type; the others keep the type.
// kCorrupt if the shape does not fit the change, kUnsupported for types that it cannot work on.
Result<ChangedTensor> to_gguf(models::Change change, DType dtype,
                              std::span<const std::int64_t> shape, std::span<const std::byte> data,
                              const HeadCounts& heads);
Result<ChangedTensor> to_hugging_face(models::Change change, DType dtype,
                                      std::span<const std::int64_t> shape,
                                      std::span<const std::byte> data, const HeadCounts& heads);

// The line of the family's table for a name of either side, with the layer's number put in for '*'.
struct NamedTensor {
  std::string name;  // on the other side
  models::Change change = models::Change::kNone;
};
std::optional<NamedTensor> gguf_name(const models::Family& family, std::string_view hugging_face);
std::optional<NamedTensor> hugging_face_name(const models::Family& family, std::string_view gguf);

}  // namespace hone::engine
