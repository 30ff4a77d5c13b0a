// A few things that cost something to make, the most recently used first.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <list>
#include <utility>

namespace hone {

template <typename T, std::size_t kMost>
class Recent {
 public:
  // The first that `fits`, which is the most recent from now on; nullptr: none does.
  template <typename Fits>
  T* find(const Fits& fits) {
    for (auto each = all_.begin(); each != all_.end(); ++each) {
      if (!fits(*each)) continue;
      all_.splice(all_.begin(), all_, each);
      return &all_.front();
    }
    return nullptr;
  }
  // In front of all others; the one that was not used for longest goes where they are too many.
  T* add(T made) {
    all_.push_front(std::move(made));
    if (all_.size() > kMost) all_.pop_back();
    return &all_.front();
  }
  auto begin() { return all_.begin(); }
  auto end() { return all_.end(); }
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }

 private:
  std::list<T> all_;
};

}  // namespace hone
