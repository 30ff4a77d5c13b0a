// Training data: a file that people have, as token sequences with masks, and a report of what
// became of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/chat_template.h"
#include "formats/tokenizer.h"
#include "tune/data/example.h"

namespace hone::tune {

struct DataOptions {
  std::int64_t length = 512;   // most tokens of an example; longer ones are cut
  bool everything = false;     // loss on all tokens, not on answers only
  double most_dropped = 0.01;  // share of the records that may be unusable before loading stops
};

struct DroppedRecord {
  std::size_t record = 0;  // as Example::record
  Error reason;
};

// Two records that give the same tokens.
struct Duplicate {
  std::size_t record = 0;
  std::size_t first = 0;
};

// Something that is commonly wrong without anybody noticing.
struct DataCheck {
  std::string name;  // "stop token inside the mask"
  bool ok = true;
  std::string detail;  // "<|im_end|> ends 104 of 104 answers"
};

struct LengthQuantiles {  // tokens of an example
  std::int64_t p10 = 0;
  std::int64_t p50 = 0;
  std::int64_t p90 = 0;
  std::int64_t p99 = 0;
  std::int64_t longest = 0;
};

struct DataReport {
  std::string format;  // "JSON lines"
  std::string shape;   // "messages", or "messages 90, text 10"
  // What Example::record counts: "line", "record" or "piece".
  std::string unit;
  std::string sha256;  // of the file
  std::int64_t bytes = 0;

  std::int64_t records = 0;
  std::int64_t kept = 0;
  std::int64_t dropped = 0;
  std::int64_t truncated = 0;
  std::int64_t duplicates = 0;  // kept examples whose tokens another one has before them
  std::int64_t tokens = 0;
  std::int64_t learned = 0;
  LengthQuantiles lengths;

  // The first few.
  std::vector<DroppedRecord> first_dropped;
  std::vector<Duplicate> first_duplicates;
  std::vector<DataCheck> checks;
};

struct Dataset {
  std::vector<Example> examples;  // in the file's order
  DataReport report;
};

// Reads, renders and tokenizes a whole file. `chat` is the model's template, null for none. Errors:
// kNotFound and kIo of the file, kCorrupt with the place in it; more unusable records than
// options.most_dropped allows are an error with the first reasons, fewer are counted in the report.
Result<Dataset> load_dataset(const std::string& path, const formats::Tokenizer& tokenizer,
                             const formats::ChatTemplate* chat, const DataOptions& options);
// The same, of a text that is in memory; `name` stands for the file in errors.
Result<Dataset> dataset_of_text(std::string_view text, const std::string& name,
                                const formats::Tokenizer& tokenizer,
                                const formats::ChatTemplate* chat, const DataOptions& options);

// In which order an epoch visits the examples: a permutation that depends on the arguments alone,
// the same on every machine. Epoch e of a seed is drawn without the epochs before it, so that a
// resumed run needs no state.
std::vector<std::size_t> epoch_order(std::size_t examples, std::uint64_t seed, std::int64_t epoch);

}  // namespace hone::tune
