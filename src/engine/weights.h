// The weights of a model in the layouts that programs ask for: borrowed from the mapped file where
// the file's form serves, packed once otherwise.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "engine/model_source.h"
#include "engine/packed_file.h"
#include "engine/weight_stream.h"
#include "ir/type.h"
#include "runtime/execute.h"
#include "runtime/program.h"

namespace hone::engine {

class WeightStore {
 public:
  // Both must outlive the store.
  WeightStore(const ModelSource& source, ThreadPool& pool) : source_(source), pool_(pool) {}

  // The weight in that dtype and layout; the address stays valid, whatever is patched later. A
  // type that the file's dtype cannot become without loss is an error, but vectors become f32.
  Result<const runtime::Weight*> get(const std::string& name, const ir::Type& type);

  // The weights of a program, in the order of its parameters.
  Result<std::vector<const runtime::Weight*>> bind(const runtime::Program& program);

  // Replaces a tensor's bytes (row-major, in its own dtype and shape) in every layout that is in
  // use. Programs that hold the weight see it at their next run; nothing is compiled.
  Status patch(const std::string& name, std::span<const std::byte> bytes);

  // A tensor that the store owns (an adapter's, a trained copy), row-major, beside the file's or in
  // front of the file's tensor of that name. The span is writable and stays where it is as long as
  // the store. Programs that read the tensor row-major see writes at their next run; those that
  // read another layout, after changed(). The same name and type again: the same memory with the
  // new bytes; with another shape the former tensor is kept for programs that have it.
  // kInvalidArgument if the size is not that of the type.
  Result<std::span<std::byte>> add_owned(const std::string& name, const ir::Type& type,
                                         std::span<const std::byte> bytes);
  // The owned bytes were written: packed copies of them are made anew.
  Status changed(const std::string& name);
  // The file's tensor of that name, or none, from here on; memory stays with the programs.
  void hide_owned(const std::string& name);

  // The type of a tensor, owned or as the file has it; nullptr if there is none.
  const ir::Type* find(std::string_view name);

  // From here on, matrices of the file that programs ask for packed are not held: each run brings
  // them through a window of so many bytes. Before the first get(). They cannot be patched.
  void stream(std::int64_t window) { stream_ = std::make_unique<WeightStream>(window); }
  WeightStream* stream() { return stream_.get(); }  // nullptr: everything is held

  // Packed matrices are taken, or streamed, out of this file where it has them. Before the first
  // get().
  void use_packed(PackedFile file) { packed_file_.emplace(std::move(file)); }
  // Brings some of what is mapped from that file into huge pages, from where each step reads it the
  // quicker. Between two runs.
  void settle(std::size_t bytes);
  // The packed matrices of the model as its file has them; `made`: bytes of those among them that
  // were packed here. Nothing once one was patched.
  std::vector<PackedFile::Tensor> packed(std::size_t* made) const;

  std::size_t owned_bytes() const { return owned_bytes_; }

 private:
  struct Entry {
    runtime::Weight weight;
    ir::Type type;
    std::span<std::byte> memory;    // what the store owns; empty where the file's bytes serve
    const std::byte* of = nullptr;  // the owned tensor that it shows or packs; none: the file's
    bool was_packed = false;        // its bytes are, or were, the packed file's
  };
  // What the store owns. All that were ever added under a name are kept: their addresses are given
  // away.
  struct Owned {
    ir::Type type;
    std::span<std::byte> memory;
  };
  struct OwnedForms {
    std::vector<std::unique_ptr<Owned>> all;
    const Owned* shown = nullptr;  // the one that the name means; none: the file's
  };
  Status fill(Entry& entry, const formats::TensorRecord& tensor, std::span<const std::byte> source);
  std::vector<PackedFile::Tensor> packed_by_parts(std::size_t* made) const;
  bool add_streamed(Entry& entry, const formats::TensorRecord& tensor);
  bool take_packed(Entry& entry, const formats::TensorRecord& tensor);
  Result<const runtime::Weight*> get_owned(const std::string& name, const Owned& owned,
                                           const ir::Type& type);

  std::span<std::byte> allocate(std::size_t bytes);

  const ModelSource& source_;
  ThreadPool& pool_;
  std::vector<runtime::Workspace> slabs_;
  std::span<std::byte> room_;  // what is left of the last slab
  std::map<std::string, std::vector<std::unique_ptr<Entry>>, std::less<>> entries_;
  std::map<std::string, ir::Type, std::less<>> types_;
  std::map<std::string, OwnedForms, std::less<>> owned_;
  std::size_t owned_bytes_ = 0;
  std::unique_ptr<WeightStream> stream_;
  std::optional<PackedFile> packed_file_;
  std::deque<Entry*> mapped_;  // out of it, and not settled yet; in the order of their packing
  bool patched_ = false;
};

}  // namespace hone::engine
