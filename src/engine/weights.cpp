// SPDX-License-Identifier: Apache-2.0
#include "engine/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/packed.h"
#include "quant/codec.h"

namespace hone::engine {
namespace {

constexpr std::size_t kAlignment = 64;
// Small tensors share allocations of this size, large enough for huge pages.
constexpr std::size_t kSlabBytes = 16 << 20;
// Packed bytes between two returns of the file's pages.
constexpr std::int64_t kSliceBytes = 2 << 20;

bool aligned(std::span<const std::byte> bytes, std::size_t to) {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % to == 0;
}

}  // namespace

const ir::Type* WeightStore::find(std::string_view name) {
  const auto owned = owned_.find(name);
  if (owned != owned_.end() && owned->second.shown != nullptr) return &owned->second.shown->type;
  const auto known = types_.find(name);
  if (known != types_.end()) return &known->second;
  const formats::TensorRecord* tensor = source_.find(name);
  if (tensor == nullptr) return nullptr;
  return &types_.emplace(std::string(name), ir::tensor_type(tensor->shape, tensor->dtype))
              .first->second;
}

std::span<std::byte> WeightStore::allocate(std::size_t bytes) {
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded > room_.size()) {
    const std::size_t slab = std::max(rounded, kSlabBytes);
    slabs_.emplace_back();
    room_ = {slabs_.back().reserve(slab), slab};
  }
  const auto part = room_.first(bytes);
  room_ = room_.subspan(rounded);
  return part;
}

Status WeightStore::fill(Entry& entry, const formats::TensorRecord& tensor,
                         std::span<const std::byte> source) {
  const ir::Type& type = entry.type;
  if (type.layout == ir::Layout::kRows16) {
    const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
    if (!layout) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("the tensor '{}' has a form that no kernel reads", tensor.name),
                   source_.path(),
                   type.text(),
                   "a matrix of weights",
                   ""};
    }
    const auto total = static_cast<std::size_t>(layout->total_bytes);
    if (entry.memory.empty()) entry.memory = allocate(total);
    std::byte* memory = entry.memory.data();
    // Slice by slice, and the file's pages let go after each: the packed form and the file are
    // never resident together.
    const std::int64_t slice = std::max<std::int64_t>(1, kSliceBytes / layout->panel_bytes);
    const auto row_bytes = static_cast<std::size_t>(dtype_bytes(type.dtype, type.columns()));
    for (std::int64_t first = 0; first < layout->panels(); first += slice) {
      const std::int64_t count = std::min(slice, layout->panels() - first);
      pool_.run([&](int thread) {
        const Range panels = share_of(count, thread, pool_.size());
        if (panels.begin < panels.end) {
          kernels::pack_panels(*layout, source, first + panels.begin, panels.end - panels.begin,
                               {memory, total});
        }
      });
      if (source.data() == tensor.data.data()) {
        const std::size_t start = static_cast<std::size_t>(first * kernels::kPanelRows) * row_bytes;
        source_.release(tensor, start,
                        static_cast<std::size_t>(count * kernels::kPanelRows) * row_bytes);
      }
    }
    entry.weight.bytes = {memory, total};
    return {};
  }
  const bool same = type.dtype == tensor.dtype;
  if (same && entry.memory.empty() && source.data() == tensor.data.data() &&
      aligned(source, sizeof(float))) {
    entry.weight.bytes = source;  // the mapped file itself
    return {};
  }
  const auto bytes = static_cast<std::size_t>(type.bytes());
  if (entry.memory.empty()) entry.memory = allocate(bytes);
  std::byte* memory = entry.memory.data();
  if (same) {
    std::memcpy(memory, source.data(), bytes);
  } else {
    const quant::Codec* codec = quant::find_codec(tensor.dtype);
    if (codec == nullptr || type.dtype != DType::kF32) {
      return Error{
          ErrorCode::kUnsupported,
          fmt::format("the tensor '{}' has an element type that cannot be used here", tensor.name),
          source_.path(),
          std::string(dtype_name(tensor.dtype)),
          std::string(dtype_name(type.dtype)),
          ""};
    }
    codec->decode(source, {reinterpret_cast<float*>(memory), bytes / sizeof(float)});
  }
  entry.weight.bytes = {memory, bytes};
  return {};
}

// False: the tensor has to be held.
bool WeightStore::add_streamed(Entry& entry, const formats::TensorRecord& tensor) {
  const ir::Type& type = entry.type;
  if (stream_ == nullptr || type.layout != ir::Layout::kRows16 || type.dtype != tensor.dtype) {
    return false;
  }
  const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
  auto place = source_.file_place(tensor);
  if (!layout || !place) return false;
  StreamedTensor streamed{tensor.name, std::move(place->path), place->offset, *layout, false};
  if (packed_file_) {
    if (const auto packed = packed_file_->place_of(tensor.name, *layout, tensor.data)) {
      streamed.path = packed_file_->path();
      streamed.offset = static_cast<std::int64_t>(*packed);
      streamed.is_packed = true;
    }
    packed_file_->release_all();
    source_.release(tensor, 0, tensor.data.size());
  }
  stream_->add(entry.weight, std::move(streamed));
  return true;
}

// False: the file has none, and it has to be made.
bool WeightStore::take_packed(Entry& entry, const formats::TensorRecord& tensor) {
  const ir::Type& type = entry.type;
  if (!packed_file_ || type.layout != ir::Layout::kRows16 || type.dtype != tensor.dtype) {
    return false;
  }
  const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
  if (!layout) return false;
  entry.weight.bytes = packed_file_->find(tensor.name, *layout, tensor.data);
  if (entry.weight.bytes.empty()) return false;
  entry.was_packed = true;
  mapped_.push_back(&entry);
  owned_bytes_ += entry.weight.bytes.size();
  source_.release(tensor, 0, tensor.data.size());
  return true;
}

void WeightStore::settle(std::size_t bytes) {
  std::size_t done = 0;
  while (!mapped_.empty() && done < bytes) {
    Entry& entry = *mapped_.front();
    mapped_.pop_front();
    const std::span<const std::byte> from = entry.weight.bytes;
    entry.memory = allocate(from.size());
    // Slice by slice, so that a large matrix is not in memory twice.
    const auto slice = static_cast<std::size_t>(kSliceBytes);
    for (std::size_t at = 0; at < from.size(); at += slice) {
      const auto part = from.subspan(at, std::min(slice, from.size() - at));
      pool_.run([&](int thread) {
        const Range share = share_of(std::ssize(part), thread, pool_.size(), 4096);
        if (share.begin >= share.end) return;
        std::memcpy(entry.memory.data() + at + share.begin, part.data() + share.begin,
                    static_cast<std::size_t>(share.end - share.begin));
      });
      packed_file_->release(part);
    }
    entry.weight.bytes = entry.memory;
    done += from.size();
    // Slices that begin or end within a page left it.
    if (mapped_.empty()) packed_file_->release_all();
  }
}

std::vector<PackedFile::Tensor> WeightStore::packed(std::size_t* made) const {
  std::vector<PackedFile::Tensor> tensors;
  *made = 0;
  if (patched_) return tensors;
  if (stream_ != nullptr) return packed_by_parts(made);
  for (const auto& [name, forms] : entries_) {
    for (const auto& entry : forms) {
      if (entry->of != nullptr || entry->type.layout != ir::Layout::kRows16) continue;
      const ir::Type& type = entry->type;
      const auto layout = kernels::packed_layout(type.dtype, type.rows(), type.columns());
      tensors.push_back({name, *layout, entry->weight.bytes, {}});
      if (!entry->was_packed) *made += entry->memory.size();
    }
  }
  return tensors;
}

// What a stream reads, packed again some panels at a time: none of it is in memory whole.
std::vector<PackedFile::Tensor> WeightStore::packed_by_parts(std::size_t* made) const {
  std::vector<PackedFile::Tensor> tensors;
  for (const formats::TensorRecord& tensor : source_.tensors()) {
    if (tensor.shape.size() != 2 || !source_.file_place(tensor)) continue;
    const auto layout = kernels::packed_layout(tensor.dtype, tensor.shape[0], tensor.shape[1]);
    if (!layout) continue;
    const auto fill = [this, &tensor, layout = *layout](const Append& append) -> Status {
      const std::int64_t row_bytes = dtype_bytes(layout.dtype, layout.columns);
      const std::int64_t most = std::max<std::int64_t>(1, kSliceBytes / layout.panel_bytes);
      std::vector<std::byte> part;
      for (std::int64_t first = 0; first < layout.panels(); first += most) {
        const std::int64_t panels = std::min(most, layout.panels() - first);
        const std::int64_t begin = first * kernels::kPanelRows;
        const std::int64_t rows = std::min(panels * kernels::kPanelRows, layout.rows - begin);
        const auto at = static_cast<std::size_t>(begin * row_bytes);
        const auto size = static_cast<std::size_t>(rows * row_bytes);
        part.resize(static_cast<std::size_t>(panels * layout.panel_bytes));
        pack_rows(layout, tensor.data.subspan(at, size), part);
        source_.release(tensor, at, size);
        HONE_RETURN_IF_ERROR(append(part));
      }
      return {};
    };
    tensors.push_back({tensor.name, *layout, {}, fill});
    const bool there = packed_file_ && packed_file_->place_of(tensor.name, *layout, tensor.data);
    if (!there) *made += static_cast<std::size_t>(layout->total_bytes);
  }
  return tensors;
}

Result<const runtime::Weight*> WeightStore::get(const std::string& name, const ir::Type& type) {
  const auto owned = owned_.find(name);
  if (owned != owned_.end() && owned->second.shown != nullptr) {
    return get_owned(name, *owned->second.shown, type);
  }
  auto& forms = entries_[name];
  for (const auto& entry : forms) {
    if (entry->of == nullptr && entry->type == type) return &entry->weight;
  }
  const formats::TensorRecord* tensor = source_.find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("the model has no tensor '{}'", name),
                 source_.path(),
                 "",
                 "",
                 "see `hone inspect --tensors`"};
  }
  auto entry = std::make_unique<Entry>();
  entry->type = type;
  if (!add_streamed(*entry, *tensor) && !take_packed(*entry, *tensor)) {
    HONE_RETURN_IF_ERROR(fill(*entry, *tensor, tensor->data));
  }
  if (!entry->memory.empty()) {
    owned_bytes_ += entry->memory.size();
    source_.release(*tensor, 0, tensor->data.size());
  }
  forms.push_back(std::move(entry));
  return &forms.back()->weight;
}

Result<std::vector<const runtime::Weight*>> WeightStore::bind(const runtime::Program& program) {
  const std::size_t mapped = mapped_.size();
  std::vector<const runtime::Weight*> weights;
  for (const runtime::Slot& slot : program.parameters) {
    auto weight = get(slot.name, slot.type);
    if (!weight) return weight.error();
    weights.push_back(*weight);
  }
  if (mapped_.size() == mapped) return weights;
  // Comparing first panels brought in pages of the model's file that are its neighbours'.
  for (const runtime::Slot& slot : program.parameters) {
    const formats::TensorRecord* tensor = source_.find(slot.name);
    const bool packed = slot.type.layout == ir::Layout::kRows16;
    if (packed && tensor != nullptr) source_.release(*tensor, 0, tensor->data.size());
  }
  return weights;
}

Result<std::span<std::byte>> WeightStore::add_owned(const std::string& name, const ir::Type& type,
                                                    std::span<const std::byte> bytes) {
  const auto wanted = static_cast<std::size_t>(type.bytes());
  if (type.layout != ir::Layout::kRowMajor || wanted == 0 || bytes.size() != wanted) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the bytes do not fit the tensor '{}'", name),
                 "",
                 fmt::format("{} bytes", bytes.size()),
                 fmt::format("{} bytes of {}", wanted, type.text()),
                 ""};
  }
  OwnedForms& forms = owned_[name];
  const auto same = std::ranges::find_if(
      forms.all, [&](const std::unique_ptr<Owned>& owned) { return owned->type == type; });
  Owned* owned = same != forms.all.end() ? same->get() : nullptr;
  if (owned == nullptr) {
    forms.all.push_back(std::make_unique<Owned>(Owned{type, allocate(wanted)}));
    owned = forms.all.back().get();
    owned_bytes_ += wanted;
  }
  std::memcpy(owned->memory.data(), bytes.data(), wanted);
  forms.shown = owned;
  HONE_RETURN_IF_ERROR(changed(name));
  return owned->memory;
}

Status WeightStore::changed(const std::string& name) {
  const auto owned = owned_.find(name);
  const auto forms = entries_.find(name);
  if (owned == owned_.end() || owned->second.shown == nullptr) {
    return Error{
        ErrorCode::kNotFound, fmt::format("no owned tensor is called '{}'", name), "", "", "", ""};
  }
  if (forms == entries_.end()) return {};
  const Owned& source = *owned->second.shown;
  for (const auto& entry : forms->second) {
    if (entry->of != source.memory.data() || entry->memory.empty()) continue;
    const formats::TensorRecord record{name, source.type.dtype, source.type.shape, {}, 0, 0};
    HONE_RETURN_IF_ERROR(fill(*entry, record, source.memory));
  }
  return {};
}

void WeightStore::hide_owned(const std::string& name) {
  const auto owned = owned_.find(name);
  if (owned != owned_.end()) owned->second.shown = nullptr;
}

Result<const runtime::Weight*> WeightStore::get_owned(const std::string& name, const Owned& owned,
                                                      const ir::Type& type) {
  auto& forms = entries_[name];
  for (const auto& entry : forms) {
    if (entry->of == owned.memory.data() && entry->type == type) return &entry->weight;
  }
  if (type.shape != owned.type.shape) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the tensor '{}' has another shape", name),
                 "",
                 owned.type.text(),
                 type.text(),
                 ""};
  }
  auto entry = std::make_unique<Entry>();
  entry->type = type;
  entry->of = owned.memory.data();
  if (type == owned.type) {
    entry->weight = {owned.memory, owned.memory};
  } else {
    // Without data: the file's pages are not this tensor's to release.
    const formats::TensorRecord record{name, owned.type.dtype, owned.type.shape, {}, 0, 0};
    HONE_RETURN_IF_ERROR(fill(*entry, record, owned.memory));
    owned_bytes_ += entry->memory.size();
  }
  forms.push_back(std::move(entry));
  return &forms.back()->weight;
}

Status WeightStore::patch(const std::string& name, std::span<const std::byte> bytes) {
  const formats::TensorRecord* tensor = source_.find(name);
  const auto forms = entries_.find(name);
  if (tensor == nullptr || bytes.size() != tensor->data.size()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("the patch does not fit the tensor '{}'", name),
        source_.path(),
        fmt::format("{} bytes", bytes.size()),
        tensor == nullptr ? "a tensor of the model" : fmt::format("{} bytes", tensor->data.size()),
        ""};
  }
  if (forms == entries_.end()) return {};
  for (const auto& entry : forms->second) {
    if (entry->weight.residency != nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("the tensor '{}' is streamed from its file and cannot change", name),
                   source_.path(),
                   "",
                   "a tensor that is held in memory",
                   "open the model without streaming"};
    }
  }
  patched_ = true;
  for (const auto& entry : forms->second) {
    std::erase(mapped_, entry.get());  // the file's bytes are not its own any more
    if (entry->of == nullptr) HONE_RETURN_IF_ERROR(fill(*entry, *tensor, bytes));
  }
  return {};
}

}  // namespace hone::engine
