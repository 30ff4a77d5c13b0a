// An open file of the operating system's, closed on every path out of a function.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <utility>

namespace hone {

struct Descriptor {
  int number = -1;  // below 0: none

  explicit Descriptor(int of = -1) : number(of) {}
  Descriptor(Descriptor&& other) noexcept : number(std::exchange(other.number, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number, other.number);
    return *this;
  }
  ~Descriptor() { close(); }

  bool is_open() const { return number >= 0; }
  void close() {
    if (is_open()) ::close(number);
    number = -1;
  }
};

}  // namespace hone
