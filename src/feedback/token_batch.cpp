// SPDX-License-Identifier: Apache-2.0
#include "feedback/token_batch.h"

#include <string>

namespace hone::feedback {
namespace {

// Shapes are multiples of this: about one program for a data set whose batches differ a little.
constexpr std::int64_t kGranule = 32;

std::int64_t rounded(std::int64_t count) { return (count + kGranule - 1) / kGranule * kGranule; }

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// The batch with as many tokens and rows as the program has: a last sequence of tokens 0 that
// nothing reads, and rows of weight 0.
TokenBatch padded(const TokenBatch& batch, const models::Batch& shape) {
  TokenBatch out = batch;
  const auto tokens = static_cast<std::size_t>(shape.tokens);
  for (std::int32_t position = 0; out.tokens.size() < tokens; ++position) {
    out.tokens.push_back(0);
    out.positions.push_back(position);
  }
  if (out.sequences() < shape.sequences) {
    out.offsets.push_back(static_cast<std::int32_t>(out.tokens.size()));
  }
  const auto rows = static_cast<std::size_t>(shape.rows);
  out.rows.resize(rows, 0);
  out.targets.resize(rows, 0);
  out.weights.resize(rows, 0.0F);
  return out;
}

}  // namespace

void TokenBatch::add(std::span<const std::int32_t> sequence, std::span<const std::uint8_t> learn,
                     float weight, std::int64_t placeholders) {
  for (std::int64_t i = 0; i < placeholders; ++i) {
    tokens.push_back(0);
    positions.push_back(static_cast<std::int32_t>(i));
  }
  const auto start = static_cast<std::int32_t>(tokens.size());
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    tokens.push_back(sequence[i]);
    positions.push_back(static_cast<std::int32_t>(placeholders) + static_cast<std::int32_t>(i));
    if (i + 1 < sequence.size() && i + 1 < learn.size() && learn[i + 1] != 0) {
      rows.push_back(start + static_cast<std::int32_t>(i));
      targets.push_back(sequence[i + 1]);
      weights.push_back(weight);
    }
  }
  offsets.push_back(static_cast<std::int32_t>(tokens.size()));
}

Result<models::Batch> shape_of(const TokenBatch& batch) {
  models::Batch shape;
  shape.tokens = rounded(static_cast<std::int64_t>(batch.tokens.size()));
  shape.sequences = batch.sequences();
  if (shape.tokens > static_cast<std::int64_t>(batch.tokens.size())) ++shape.sequences;
  shape.rows = rounded(static_cast<std::int64_t>(batch.rows.size()));
  if (batch.tokens.empty() || batch.rows.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "there is nothing to learn in this batch",
                 "",
                 std::to_string(batch.tokens.size()) + " tokens, " +
                     std::to_string(batch.rows.size()) + " of them targets",
                 "at least one target",
                 "check the mask with `hone data`"};
  }
  return shape;
}

BatchInputs::BatchInputs(const TokenBatch& batch, const models::Batch& shape)
    : whole_(padded(batch, shape)),
      slots_(whole_.tokens.size(), 0),
      pages_(static_cast<std::size_t>(shape.sequences), 0) {}

std::vector<std::span<const std::byte>> BatchInputs::bind(const runtime::Program& program,
                                                          std::span<const float> below) const {
  std::vector<std::span<const std::byte>> inputs;
  for (const runtime::Slot& slot : program.inputs) {
    inputs.push_back(slot.name == "tokens"      ? bytes_of(whole_.tokens)
                     : slot.name == "positions" ? bytes_of(whole_.positions)
                     : slot.name == "offsets"   ? bytes_of(whole_.offsets)
                     : slot.name == "rows"      ? bytes_of(whole_.rows)
                     : slot.name == "targets"   ? bytes_of(whole_.targets)
                     : slot.name == "weights"   ? bytes_of(whole_.weights)
                     : slot.name == "draws"     ? std::as_bytes(std::span(whole_.draws))
                     : slot.name == "slots"     ? bytes_of(slots_)
                     : slot.name == kBelowName  ? std::as_bytes(below)
                                                : bytes_of(pages_));
  }
  return inputs;
}

}  // namespace hone::feedback
