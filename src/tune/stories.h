// Stories by a grammar: text of a small world for pretraining, where no other is at hand.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace hone::tune {

// `count` short stories, a paragraph each, empty lines between; the same for the same seed.
// Somebody somewhere wants something, meets somebody, and it ends: about 2,000 words of English in
// a few hundred thousand combinations, with names and things that agree from sentence to sentence.
std::string stories(std::int64_t count, std::uint64_t seed);

}  // namespace hone::tune
