// Labelled sentences for classification, and their words as hashed features.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hone::tune {

struct LabelledText {
  std::vector<std::string> texts;
  std::vector<std::int32_t> labels;  // from 0

  std::int64_t count() const { return std::ssize(labels); }
};

// "LABEL text" a line, as Subj, TREC and CR are kept (Kim 2014), or "text TAB LABEL" below a line
// that names the columns, as SST-2 is in GLUE; labels are whole numbers from 0 to 999. Errors:
// kNotFound for an absent file, kCorrupt with the line that has no label.
Result<LabelledText> read_labelled_text(const std::string& path);

// Takes every `every`th example, from the first on, out of the text and returns those.
LabelledText take_every(LabelledText& text, std::int64_t every);

// A bag of words and of pairs of neighbours: each adds 1 or -1 to one of the features, by a hash
// (Weinberger et al. 2009, "Feature hashing"); divided by the norm. Words are runs of what is no
// space, without regard to case.
void hash_words(std::string_view text, std::span<float> features);

}  // namespace hone::tune
