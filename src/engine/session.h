// The session: a model in memory, its programs, its cache, and many sequences that step together.
// The public C++ API of running a model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/recent.h"
#include "base/status.h"
#include "base/threads.h"
#include "engine/adapter.h"
#include "engine/compile.h"
#include "engine/kv_cache.h"
#include "engine/model_source.h"
#include "engine/weights.h"
#include "models/family.h"
#include "passes/transform/soft_prompt.h"
#include "runtime/execute.h"

namespace hone::engine {

struct SessionOptions {
  int threads = 0;           // below 1: all usable cores
  std::int64_t context = 0;  // tokens of the longest sequence; 0: the model's, at most 4,096
  std::int64_t budget = 0;   // tokens of all sequences together; 0: `context`
  std::int64_t batch = 256;  // tokens of one prefill step
  bool reuse_prefixes = true;
  // Bytes of the window that matrices are streamed through from their file, step by step
  // (docs/streaming.md). 0: only where the model is larger than the memory that is available; below
  // 0: never.
  std::int64_t stream = 0;
  // Folder of packed weights (engine/packed_file.h), read if it has the model's. Empty: none.
  std::string packed_folder;
  CompileOptions compile;
};

using SequenceId = std::int64_t;

enum class Wanted : std::uint8_t { kLast, kAll };

// The next tokens of one sequence.
struct Request {
  SequenceId sequence = 0;
  std::span<const TokenId> tokens;
  Wanted logits = Wanted::kLast;
};

class Session {
 public:
  static Result<std::unique_ptr<Session>> open(const std::string& model,
                                               const SessionOptions& options = {});
  static Result<std::unique_ptr<Session>> open(ModelSource source, const SessionOptions& options);

  const models::Config& config() const { return config_; }
  const ModelSource& source() const { return source_; }
  const SessionOptions& options() const { return options_; }
  int threads() const { return pool_.size(); }
  // Tokens of the longest text: what the cache holds, less a soft prompt's virtual tokens.
  std::int64_t context() const { return options_.context - virtual_tokens_; }
  std::int64_t virtual_tokens() const { return virtual_tokens_; }
  KvCache& cache() { return *cache_; }
  WeightStore& weights() { return weights_; }
  ThreadPool& pool() { return pool_; }

  // Lengths and tokens of sequences are those of their text: virtual tokens of a soft prompt go in
  // front of a sequence's first token by themselves and are not counted.
  // `member` of the population whose adapters are attached; 0 without one.
  SequenceId begin(std::int64_t member = 0);
  void end(SequenceId id);
  // Forgets the tokens of a sequence from `length` on.
  Status truncate(SequenceId id, std::int64_t length);
  std::int64_t length(SequenceId id) const;
  // Takes over pages of other prompts that begin with the same tokens; returns how many tokens need
  // no evaluation. For a sequence without tokens.
  std::int64_t reuse(SequenceId id, std::span<const TokenId> prompt);

  // Runs one batch. Logits lie row after row (V each), in the order of the requests, valid until
  // the next call. Sequences are distinct. Errors leave all sequences as they were.
  Result<std::span<const float>> step(std::span<const Request> requests);
  // Feeds a whole prompt in steps of `batch` tokens; logits of its last token.
  Result<std::span<const float>> prefill(SequenceId id, std::span<const TokenId> tokens);

  // Runs with an adapter that fits the model from the next step on, in place of the one before; B
  // is multiplied by the adapter's scale times `strength`. An adapter of the same form, weights and
  // ranks as one before compiles nothing. Sequences that hold tokens keep their keys and values as
  // they are, virtual tokens included or not. A soft prompt has no strength between. Errors are
  // those of fits_model and kInvalidArgument for a strength or a context that leaves no text; they
  // leave the session as it was.
  Status attach(const formats::Adapter& adapter, double strength = 1);
  // An adapter for each member of a population, all of kLora with the same weights and ranks: every
  // sequence runs with its member's, all in one step. Sequences of a population share no pages. Of
  // one member it is `attach`.
  Status attach_population(std::span<const formats::Adapter> members);
  std::int64_t members() const { return adapter_ ? adapter_->members : 1; }
  void detach();
  // Weights were written: beginnings of prompts computed before are not shared any more.
  void weights_changed();

  // Compiles what the model will need for steps of this shape, weights packed.
  Status prepare(std::int64_t tokens, std::int64_t sequences, std::int64_t rows);
  // Writes the packed weights into the folder of the options, for the next session, if so many
  // bytes of them were made here: smaller models start as quickly without. True: it did.
  Result<bool> keep_packed(std::size_t least = std::size_t{32} << 20);
  Result<ir::Graph> build_graph(const models::Batch& batch);
  std::int64_t compiled_programs() const { return compiled_; }
  // Bytes that runs have needed so far beside weights and cache.
  std::size_t workspace_bytes() const { return workspace_.capacity(); }
  // Runs steps of `tokens` tokens of each of some fresh sequences and gives the mean seconds of
  // each kind of step in one run, slowest first.
  Result<std::vector<std::pair<std::string, double>>> profile(std::int64_t tokens,
                                                              std::int64_t sequences, int runs);

 private:
  struct Bound {
    models::Batch batch;
    std::string form;  // of the adapter that it was built with
    std::uint64_t hash = 0;
    std::shared_ptr<const runtime::Program> program;
    std::vector<const runtime::Weight*> weights;
    std::vector<runtime::CachePages> caches;
  };
  struct Sequence {
    std::vector<TokenId> tokens;  // kVirtualToken for those of a soft prompt
    std::vector<std::int32_t> pages;
    std::int64_t virtual_tokens = 0;  // in front of the text; set by its first token
    std::int64_t member = 0;          // of a population
    bool shares = true;               // all its tokens were computed with the present weights
  };

  Session(ModelSource source, SessionOptions options);
  Status start();
  Result<Bound*> program_for(const models::Batch& batch);
  Status check(std::span<const Request> requests) const;
  Status attach_prompt(const formats::Adapter& adapter, double strength);
  // Runs with what was added to the weights; `form` is all that programs depend on beside ranks.
  void serve(passes::LoraOptions adapter, std::string form);
  // Virtual tokens that a sequence still lacks in front of its text.
  std::int64_t missing_virtual(const Sequence& sequence) const;
  Status take_pages(Sequence& sequence, std::int64_t tokens);
  void drop_pages(Sequence& sequence, std::size_t keep);
  void give_back_pages(std::span<const Request> requests);

  SessionOptions options_;
  ModelSource source_;
  ThreadPool pool_;
  WeightStore weights_;
  const models::Family* family_ = nullptr;
  models::Config config_;
  std::optional<passes::LoraOptions> adapter_;
  std::int64_t virtual_tokens_ = 0;  // of the soft prompt that is attached
  std::string adapter_form_;         // what programs depend on: form, weights and ranks
  std::optional<KvCache> cache_;
  runtime::Workspace workspace_;
  // A decode shape, some prefill shapes, the shapes of a batch that shrinks.
  Recent<Bound, 32> programs_;
  std::map<SequenceId, Sequence> sequences_;
  SequenceId next_ = 1;
  std::int64_t compiled_ = 0;
  bool stepped_ = false;
  runtime::Profile* profile_ = nullptr;
};

}  // namespace hone::engine
