// The weights of a model in the layouts that programs ask for: borrowed from the mapped file where
// the file's form serves, packed once otherwise.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "engine/model_source.h"
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

  // Replaces a tensor's bytes (row-major, in its own dtype and shape) in every layout that is in
  // use. Programs that hold the weight see it at their next run; nothing is compiled.
  Status patch(const std::string& name, std::span<const std::byte> bytes);

  // The type of a tensor as the file has it; nullptr if there is none.
  const ir::Type* find(std::string_view name);

  std::size_t owned_bytes() const { return owned_bytes_; }

 private:
  struct Entry {
    runtime::Weight weight;
    ir::Type type;
    std::span<std::byte> memory;  // what the store owns; empty where the file's bytes serve
  };
  Status fill(Entry& entry, const formats::TensorRecord& tensor, std::span<const std::byte> source);

  std::span<std::byte> allocate(std::size_t bytes);

  const ModelSource& source_;
  ThreadPool& pool_;
  std::vector<runtime::Workspace> slabs_;
  std::span<std::byte> room_;  // what is left of the last slab
  std::map<std::string, std::vector<std::unique_ptr<Entry>>, std::less<>> entries_;
  std::map<std::string, ir::Type, std::less<>> types_;
  std::size_t owned_bytes_ = 0;
};

}  // namespace hone::engine
