// SPDX-License-Identifier: Apache-2.0
#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/human.h"
#include "base/system.h"

namespace hone::engine {
namespace {

// Without an option: enough for long conversations on small machines.
constexpr std::int64_t kDefaultContext = 4096;

// Of packed weights that a step brings into huge pages: a few milliseconds.
constexpr std::size_t kSettledBytes = 16 << 20;

// Stands for a virtual token in a sequence: equal to none of the vocabulary, so that no beginning
// of a plain prompt is taken for it.
constexpr TokenId kVirtualToken = -1;
// Tells for each row which virtual token it is.
constexpr const char* kVirtualRows = "virtual";

bool same(const models::Batch& a, const models::Batch& b) {
  return a.tokens == b.tokens && a.sequences == b.sequences && a.pages == b.pages &&
         a.rows == b.rows;
}

std::span<const std::byte> bytes_of(const std::vector<std::int32_t>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

Session::Session(ModelSource source, SessionOptions options)
    : options_(std::move(options)),
      source_(std::move(source)),
      pool_(options_.threads),
      weights_(source_, pool_) {}

Result<std::unique_ptr<Session>> Session::open(const std::string& model,
                                               const SessionOptions& options) {
  auto source = ModelSource::open(model);
  if (!source) return source.error();
  return open(*std::move(source), options);
}

Result<std::unique_ptr<Session>> Session::open(ModelSource source, const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session(std::move(source), options));
  const Status status = session->start();
  if (!status.ok()) return status.error().in(session->source_.path());
  return session;
}

Status Session::start() {
  auto architecture = source_.metadata().text("general.architecture");
  if (!architecture) return architecture.error();
  family_ = models::find_family(*architecture);
  if (family_ == nullptr) {
    std::string known;
    for (const models::Family* family : models::all_families()) {
      known += (known.empty() ? "" : ", ") + std::string(family->architecture);
    }
    return Error{ErrorCode::kUnsupported,
                 "this model's architecture is not known",
                 "",
                 *architecture,
                 known,
                 "pick a model of one of these families"};
  }
  auto config = family_->configure(source_.metadata(),
                                   [this](std::string_view name) { return weights_.find(name); });
  if (!config) return config.error();
  config_ = *std::move(config);
  if (options_.context <= 0) options_.context = std::min(config_.context, kDefaultContext);
  if (options_.context > config_.context) {
    return Error{ErrorCode::kOutOfRange,
                 "the context is longer than the model was made for",
                 "",
                 fmt::format("{} tokens", options_.context),
                 fmt::format("at most {}", config_.context),
                 "lower --context"};
  }
  options_.budget = std::max(options_.budget, options_.context);
  options_.batch = std::clamp<std::int64_t>(options_.batch, 1, options_.context);
  const kernels::CacheLayout layout{options_.compile.lower.cache,
                                    static_cast<int>(config_.kv_heads),
                                    static_cast<int>(config_.head_size)};
  const std::int64_t cache_bytes =
      static_cast<std::int64_t>(layout.page_bytes_key() + layout.page_bytes_value()) *
      ((options_.budget + kernels::kPageTokens - 1) / kernels::kPageTokens) * config_.layers;
  const std::int64_t available = memory_info().available;
  const bool too_large = available > 0 && source_.file_bytes() + cache_bytes > available;
  // A model larger than the memory streams its weights through half of what is left.
  if (options_.stream == 0 && too_large) options_.stream = (available - cache_bytes) / 2;
  const std::int64_t weight_bytes = options_.stream > 0 ? options_.stream : source_.file_bytes();
  if (available > 0 && weight_bytes + cache_bytes > available) {
    return Error{ErrorCode::kOutOfMemory,
                 "the model does not fit into this machine's memory",
                 "",
                 fmt::format("{} for weights and {} for keys and values", human_bytes(weight_bytes),
                             human_bytes(cache_bytes)),
                 fmt::format("at most {} available", human_bytes(available)),
                 "lower --context, or use a smaller or more quantized model"};
  }
  if (options_.stream > 0) weights_.stream(options_.stream);
  if (!options_.packed_folder.empty()) {
    auto packed = PackedFile::open(options_.packed_folder, source_.path());
    if (packed) weights_.use_packed(*std::move(packed));
  }
  cache_.emplace(layout, config_.layers, options_.budget);
  options_.compile.lower.threads = pool_.size();
  source_.release_header();
  return {};
}

Result<ir::Graph> Session::build_graph(const models::Batch& batch) {
  auto graph =
      family_->build(config_, batch, [this](std::string_view name) { return weights_.find(name); });
  if (graph && virtual_tokens_ > 0) {
    return passes::add_soft_prompt(*graph, {virtual_tokens_, kVirtualRows, false});
  }
  if (!graph || !adapter_) return graph;
  return passes::add_lora(*graph, *adapter_);
}

void Session::weights_changed() {
  cache_->forget_all();
  for (auto& [id, sequence] : sequences_) {
    if (!sequence.tokens.empty()) sequence.shares = false;
  }
}

Result<Session::Bound*> Session::program_for(const models::Batch& batch) {
  Bound* known = programs_.find(
      [&](const Bound& each) { return same(each.batch, batch) && each.form == adapter_form_; });
  if (known != nullptr) return known;
  auto graph = build_graph(batch);
  if (!graph) return graph.error();
  Bound bound;
  bound.batch = batch;
  bound.form = adapter_form_;
  bound.hash = ir::structural_hash(*graph);
  for (const Bound& other : programs_) {
    if (other.hash == bound.hash) bound.program = other.program;
  }
  if (bound.program == nullptr) {
    auto program = compile(*std::move(graph), options_.compile);
    if (!program) return program.error();
    ++compiled_;
    bound.program = std::make_shared<const runtime::Program>(*std::move(program));
  }
  auto weights = weights_.bind(*bound.program);
  if (!weights) return weights.error();
  bound.weights = *std::move(weights);
  for (const runtime::Slot& slot : bound.program->caches) {
    std::size_t layer = 0;
    std::from_chars(slot.name.data(), slot.name.data() + slot.name.size(), layer);
    bound.caches.push_back(cache_->layers()[layer]);
  }
  return programs_.add(std::move(bound));
}

Status Session::prepare(std::int64_t tokens, std::int64_t sequences, std::int64_t rows) {
  const std::int64_t pages = (options_.context + kernels::kPageTokens - 1) / kernels::kPageTokens;
  auto bound = program_for({tokens, sequences, pages, rows});
  if (!bound) return bound.error();
  workspace_.reserve(runtime::workspace_bytes(*(*bound)->program));
  return {};
}

Result<bool> Session::keep_packed(std::size_t least) {
  std::size_t made = 0;
  const auto tensors = weights_.packed(&made);
  if (options_.packed_folder.empty() || made < std::max<std::size_t>(1, least)) return false;
  return PackedFile::write(options_.packed_folder, source_.path(), tensors);
}

SequenceId Session::begin(std::int64_t member) {
  sequences_[next_].member = member;
  return next_++;
}

void Session::end(SequenceId id) {
  const auto at = sequences_.find(id);
  if (at == sequences_.end()) return;
  drop_pages(at->second, 0);
  sequences_.erase(at);
}

std::int64_t Session::length(SequenceId id) const {
  const auto at = sequences_.find(id);
  if (at == sequences_.end()) return 0;
  const auto all = static_cast<std::int64_t>(at->second.tokens.size());
  return std::max<std::int64_t>(0, all - at->second.virtual_tokens);
}

std::int64_t Session::missing_virtual(const Sequence& sequence) const {
  if (sequence.tokens.empty()) return virtual_tokens_;
  return std::max<std::int64_t>(
      0, sequence.virtual_tokens - static_cast<std::int64_t>(sequence.tokens.size()));
}

Status Session::truncate(SequenceId id, std::int64_t length) {
  const auto at = sequences_.find(id);
  if (at == sequences_.end() || length < 0 || length > this->length(id)) {
    return Error{ErrorCode::kInvalidArgument, "no such place in this sequence",         "",
                 fmt::format("{}", length),   fmt::format("0 to {}", this->length(id)), ""};
  }
  Sequence& sequence = at->second;
  if (length > 0) length += sequence.virtual_tokens;
  const auto keep =
      static_cast<std::size_t>((length + kernels::kPageTokens - 1) / kernels::kPageTokens);
  const std::vector<std::int32_t> before = sequence.pages;
  drop_pages(sequence, keep);
  // The next tokens go into the last page, which others may share.
  if (length % kernels::kPageTokens != 0) {
    auto own = cache_->make_own(sequence.pages.back());
    if (!own) {
      // No page became free, so others hold all that were dropped: they can be taken back.
      for (std::size_t i = keep; i < before.size(); ++i) cache_->hold(before[i]);
      sequence.pages = before;
      return own.error();
    }
    sequence.pages.back() = *own;
  }
  sequence.tokens.resize(static_cast<std::size_t>(length));
  if (length == 0) sequence.shares = true;
  return {};
}

// The last first: whoever needs their memory takes the end of a beginning before its start.
void Session::drop_pages(Sequence& sequence, std::size_t keep) {
  while (sequence.pages.size() > keep) {
    cache_->drop(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

std::int64_t Session::reuse(SequenceId id, std::span<const TokenId> prompt) {
  const auto at = sequences_.find(id);
  if (!options_.reuse_prefixes || members() > 1 || at == sequences_.end() ||
      !at->second.tokens.empty() || prompt.empty()) {
    return 0;
  }
  std::vector<TokenId> whole(static_cast<std::size_t>(virtual_tokens_), kVirtualToken);
  whole.insert(whole.end(), prompt.begin(), prompt.end());
  // The last token is always evaluated: its logits are wanted.
  at->second.pages = cache_->share(std::span(whole).first(whole.size() - 1));
  const std::size_t shared = at->second.pages.size() * kernels::kPageTokens;
  at->second.tokens.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(shared));
  at->second.virtual_tokens = virtual_tokens_;
  return length(id);
}

Status Session::check(std::span<const Request> requests) const {
  if (requests.empty()) {
    return Error{ErrorCode::kInvalidArgument, "a step needs at least one sequence", "", "", "", ""};
  }
  std::set<SequenceId> seen;
  for (const Request& request : requests) {
    if (!sequences_.contains(request.sequence) || request.tokens.empty() ||
        !seen.insert(request.sequence).second) {
      return Error{ErrorCode::kInvalidArgument,
                   "a request has no sequence of its own or no tokens",
                   "",
                   "",
                   "a sequence of this session, once a step, and at least one token",
                   ""};
    }
    const Sequence& sequence = sequences_.at(request.sequence);
    if (sequence.member < 0 || sequence.member >= members()) {
      return Error{ErrorCode::kOutOfRange,
                   "the sequence is of a member that the population lacks",
                   "",
                   fmt::format("{}", sequence.member),
                   fmt::format("0 to {}", members() - 1),
                   ""};
    }
    const std::int64_t in_front = missing_virtual(sequence);
    const std::int64_t total = static_cast<std::int64_t>(sequence.tokens.size()) + in_front +
                               static_cast<std::int64_t>(request.tokens.size());
    if (total > options_.context) {
      return Error{ErrorCode::kOutOfRange,
                   "the text is longer than the context",
                   "",
                   fmt::format("{} tokens, virtual ones included", total),
                   fmt::format("at most {}", options_.context),
                   "shorten the prompt, or raise --context"};
    }
    for (const TokenId token : request.tokens) {
      if (token < 0 || token >= config_.vocabulary) {
        return Error{ErrorCode::kOutOfRange,   "a token is outside of the vocabulary",         "",
                     fmt::format("{}", token), fmt::format("0 to {}", config_.vocabulary - 1), ""};
      }
    }
  }
  return {};
}

Status Session::take_pages(Sequence& sequence, std::int64_t tokens) {
  const std::size_t total = sequence.tokens.size() + static_cast<std::size_t>(tokens);
  const std::size_t needed = (total + kernels::kPageTokens - 1) / kernels::kPageTokens;
  while (sequence.pages.size() < needed) {
    auto page = cache_->take();
    if (!page) return page.error();
    sequence.pages.push_back(*page);
  }
  return {};
}

// After a step that failed: pages beyond the tokens of a sequence are free again.
void Session::give_back_pages(std::span<const Request> requests) {
  for (const Request& request : requests) {
    Sequence& sequence = sequences_.at(request.sequence);
    drop_pages(sequence,
               (sequence.tokens.size() + kernels::kPageTokens - 1) / kernels::kPageTokens);
  }
}

Result<std::span<const float>> Session::step(std::span<const Request> requests) {
  // A first answer does not wait for it; later steps read from huge pages.
  if (stepped_) weights_.settle(kSettledBytes);
  stepped_ = true;
  HONE_RETURN_IF_ERROR(check(requests));
  models::Batch batch{0, static_cast<std::int64_t>(requests.size()),
                      (options_.context + kernels::kPageTokens - 1) / kernels::kPageTokens, 0};
  std::vector<std::int32_t> tokens, positions, slots, offsets{0}, pages, rows, virtual_rows;
  std::vector<std::int32_t> members, row_members;
  pages.assign(static_cast<std::size_t>(batch.sequences * batch.pages), 0);
  for (std::size_t s = 0; s < requests.size(); ++s) {
    const Request& request = requests[s];
    Sequence& sequence = sequences_.at(request.sequence);
    const auto in_front = static_cast<std::size_t>(missing_virtual(sequence));
    const std::size_t count = in_front + request.tokens.size();
    const Status taken = take_pages(sequence, static_cast<std::int64_t>(count));
    if (!taken.ok()) {
      give_back_pages(requests.first(s + 1));
      return taken.error();
    }
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t position = sequence.tokens.size() + i;
      tokens.push_back(i < in_front ? 0 : request.tokens[i - in_front]);
      virtual_rows.push_back(
          static_cast<std::int32_t>(i < in_front ? position : static_cast<std::size_t>(INT32_MAX)));
      positions.push_back(static_cast<std::int32_t>(position));
      members.push_back(static_cast<std::int32_t>(sequence.member));
      slots.push_back(sequence.pages[position / kernels::kPageTokens] * kernels::kPageTokens +
                      static_cast<std::int32_t>(position % kernels::kPageTokens));
      const bool last = i + 1 == count;
      if (last || (i >= in_front && request.logits == Wanted::kAll)) {
        rows.push_back(static_cast<std::int32_t>(tokens.size() - 1));
        row_members.push_back(members.back());
      }
    }
    offsets.push_back(static_cast<std::int32_t>(tokens.size()));
    std::copy(sequence.pages.begin(), sequence.pages.end(),
              pages.begin() + static_cast<std::ptrdiff_t>(s) * batch.pages);
  }
  batch.tokens = static_cast<std::int64_t>(tokens.size());
  batch.rows = static_cast<std::int64_t>(rows.size());
  auto bound = program_for(batch);
  if (!bound) {
    give_back_pages(requests);
    return bound.error();
  }

  const runtime::Program& program = *(*bound)->program;
  std::vector<std::span<const std::byte>> inputs;
  for (const runtime::Slot& slot : program.inputs) {
    const std::vector<std::int32_t>& values = slot.name == "tokens"        ? tokens
                                              : slot.name == "positions"   ? positions
                                              : slot.name == "slots"       ? slots
                                              : slot.name == "offsets"     ? offsets
                                              : slot.name == "pages"       ? pages
                                              : slot.name == kVirtualRows  ? virtual_rows
                                              : slot.name == "members"     ? members
                                              : slot.name == "row_members" ? row_members
                                                                           : rows;
    inputs.push_back(bytes_of(values));
  }
  const Status ran = runtime::execute(program, {(*bound)->weights, inputs, (*bound)->caches}, pool_,
                                      workspace_, profile_);
  if (!ran.ok()) {
    give_back_pages(requests);
    return ran.error();
  }
  for (const Request& request : requests) {
    Sequence& sequence = sequences_.at(request.sequence);
    const std::size_t full_before = sequence.tokens.size() / kernels::kPageTokens;
    const std::int64_t in_front = missing_virtual(sequence);
    if (sequence.tokens.empty()) sequence.virtual_tokens = in_front;
    sequence.tokens.insert(sequence.tokens.end(), static_cast<std::size_t>(in_front),
                           kVirtualToken);
    sequence.tokens.insert(sequence.tokens.end(), request.tokens.begin(), request.tokens.end());
    if (!options_.reuse_prefixes || !sequence.shares || this->members() > 1) continue;
    for (std::size_t p = full_before; p < sequence.tokens.size() / kernels::kPageTokens; ++p) {
      cache_->file(sequence.pages[p],
                   std::span(sequence.tokens).first((p + 1) * kernels::kPageTokens));
    }
  }
  return runtime::output(program, workspace_, 0);
}

Result<std::span<const float>> Session::prefill(SequenceId id, std::span<const TokenId> tokens) {
  const std::int64_t total = length(id) + static_cast<std::int64_t>(tokens.size());
  if (total > context()) {
    return Error{ErrorCode::kOutOfRange,
                 "the prompt is longer than the context",
                 "",
                 fmt::format("{} tokens", total),
                 fmt::format("at most {}", context()),
                 "shorten the prompt, or raise --context"};
  }
  std::span<const float> logits;
  while (!tokens.empty()) {
    const std::size_t count = std::min(tokens.size(), static_cast<std::size_t>(options_.batch));
    const Request request{id, tokens.first(count), Wanted::kLast};
    auto result = step(std::span(&request, 1));
    if (!result) return result.error();
    logits = *result;
    tokens = tokens.subspan(count);
  }
  return logits;
}

Result<std::vector<std::pair<std::string, double>>> Session::profile(std::int64_t tokens,
                                                                     std::int64_t sequences,
                                                                     int runs) {
  runtime::Profile profile;
  const std::vector<TokenId> text(static_cast<std::size_t>(tokens), 1);
  std::vector<std::string> kinds;
  for (int run = 0; run <= runs; ++run) {  // the first is not counted
    std::vector<Request> requests;
    for (std::int64_t i = 0; i < sequences; ++i) requests.push_back({begin(), text, Wanted::kLast});
    profile_ = run == 0 ? nullptr : &profile;
    auto logits = step(requests);
    profile_ = nullptr;
    for (const Request& request : requests) end(request.sequence);
    if (!logits) return logits.error();
    kinds.clear();
    for (const runtime::Step& step : programs_.begin()->program->steps) {
      kinds.push_back(std::string(step.op) + (step.barrier ? "" : " (each thread)"));
    }
  }
  std::map<std::string, double> sums;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    sums[kinds[i]] += static_cast<double>(profile.step_nanoseconds[i]) * 1e-9 / runs;
  }
  std::vector<std::pair<std::string, double>> rows(sums.begin(), sums.end());
  std::ranges::sort(rows, std::greater<>(), &std::pair<std::string, double>::second);
  return rows;
}

}  // namespace hone::engine
