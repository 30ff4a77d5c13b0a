// Sentence classification tasks for a classifier with several heads, and their batches.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads.h"
#include "tune/multitask.h"

namespace hone::tune {

struct TextTask {
  std::string name;
  std::int64_t classes = 2;
  std::vector<float> features, test_features;  // (N, F): hash_words
  std::vector<std::int32_t> labels, test_labels;
};

// SST-2, Subj and TREC from the files sst2-train.tsv, sst2-dev.tsv, subj.all (every tenth line is
// test), TREC.train.all and TREC.test.all; of each at most `most` examples, evenly spread.
Result<std::vector<TextTask>> read_text_tasks(const std::string& folder, std::int64_t features,
                                              std::int64_t most);

// `rows` examples of each task, drawn by (seed, step). The loss is the mean over tasks of each
// task's mean. every_label: each task's batch has the rows of all, as where an image has a label of
// every task; the labels of rows of other tasks mean nothing, so this is for measuring time.
MultitaskBatch text_batch(std::span<const TextTask> tasks, std::int64_t rows, std::uint64_t seed,
                          std::int64_t step, bool every_label = false);

struct TextRun {
  MultitaskOptions gradient;
  std::int64_t alone = -1;   // the one task that is trained; -1: all of them
  std::int64_t hidden = 64;  // a trunk of one layer
  std::int64_t rows = 32;    // of each task in a step
  std::int64_t steps = 500;
  double rate = 3e-3;  // Adam's; gradients are clipped to 1
  std::uint64_t seed = 1;
};

// Trains a new classifier; the test accuracies of the tasks that were trained.
Result<std::vector<double>> learn_tasks(ThreadPool& pool, std::span<const TextTask> tasks,
                                        const TextRun& run);

}  // namespace hone::tune
