// Errors as values: what went wrong, where, what was found, what was expected, what to try.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace hone {

// The class of an error; the CLI maps each to an exit status (docs/exit-codes.md).
enum class ErrorCode {
  kInvalidArgument,  // the caller (or the user) asked for something that makes no sense
  kNotFound,         // a file, tensor, name that should be there is not
  kCorrupt,          // bytes that break their own format
  kUnsupported,      // well formed, but outside of what hone knows
  kOutOfRange,       // a size, position or count past its limit
  kOutOfMemory,      // the machine cannot hold it
  kIo,               // the operating system refused
  kInternal,         // a promise inside hone was broken: a bug
};

// One sentence each, all optional but `what`. Built at the bottom, annotated on the way up
// (`in`), printed once at the top by the CLI.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string what;      // "tensor 'blk.0.attn_q.weight' lies outside of the file"
  std::string where;     // file, byte offset, line: "model.gguf, byte 1234"
  std::string found;     // "offset 99999999"
  std::string expected;  // "at most 98356224"
  std::string advice;    // "download the file again: it seems truncated"

  // Puts a place in front of `where`; returns itself so that a caller can `return e.in(path)`.
  Error in(const std::string& place) const;
  // All parts in one readable text of one to five lines.
  std::string text() const;
};

const char* error_code_name(ErrorCode code);

// A value or an Error. Checked access: `if (!r) return r.error();` then `*r` or `r->`.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT implicit

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    assert(!ok());
    return *std::get_if<1>(&state_);
  }
  T& value() & {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    assert(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Error> state_;
};

// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT implicit
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    assert(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

// `HONE_RETURN_IF_ERROR(write(...))` leaves the function with the error, if there is one.
// It declares nothing that the caller could see.
#define HONE_RETURN_IF_ERROR(expression)                                           \
  do {                                                                             \
    if (auto hone_status = (expression); !hone_status) return hone_status.error(); \
  } while (false)

}  // namespace hone
