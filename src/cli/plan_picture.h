// The memory plan of a program as text and as an SVG picture.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runtime/program.h"

namespace hone::cli {

// One line a value: offset, bytes, from step to step.
std::string plan_text(const runtime::Program& program);
// Steps from left to right, bytes of the arena from bottom to top, a rectangle for each value.
std::string plan_svg(const runtime::Program& program);

}  // namespace hone::cli
