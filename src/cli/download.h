// A file over HTTP: resumed where an earlier try ended, tried again when the network stumbles,
// checked before it gets its name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/status.h"

namespace hone::cli {

struct DownloadOptions {
  std::string sha256;  // empty: not checked
  bool quiet = false;  // no progress line
  int tries = 5;
  std::chrono::milliseconds first_pause{500};  // before the second try; doubled each time
};

struct Downloaded {
  std::int64_t bytes = 0;
  std::int64_t resumed_from = 0;  // bytes that an earlier call had left
  std::string sha256;
};

// Writes to `path`.partial (with its ETag in `path`.partial.json), which stays when the network
// fails, and renames it when it is complete. A wrong checksum removes it. Errors: kNotFound (404),
// kInvalidArgument (the URL), kCorrupt (checksum), kIo (network, TLS, refusals, disk).
Result<Downloaded> download(const std::string& url, const std::string& path,
                            const DownloadOptions& options);

}  // namespace hone::cli
