// SPDX-License-Identifier: Apache-2.0
#include "base/status.h"

namespace hone {

Error Error::in(const std::string& place) const {
  Error copy = *this;
  copy.where = copy.where.empty() ? place : place + ", " + copy.where;
  return copy;
}

std::string Error::text() const {
  std::string out = what;
  if (!where.empty()) out += "\n  where:    " + where;
  if (!found.empty()) out += "\n  found:    " + found;
  if (!expected.empty()) out += "\n  expected: " + expected;
  if (!advice.empty()) out += "\n  try:      " + advice;
  return out;
}

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid argument";
    case ErrorCode::kNotFound: return "not found";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kOutOfRange: return "out of range";
    case ErrorCode::kOutOfMemory: return "out of memory";
    case ErrorCode::kIo: return "input/output";
    case ErrorCode::kInternal: return "internal";
  }
  return "unknown";
}

}  // namespace hone
