// hone in one file: a llama model read from a GGUF file, run, and trained, in plain scalar C++.
// SPDX-License-Identifier: Apache-2.0
//
// To be read from top to bottom. Nothing here is fast, and nothing is hidden: no dependencies, no
// threads, no SIMD, every derivative by hand. The large program must compute what this one does.
//
//   1 arrays   2 the file   3 number formats   4 tokenizer   5 ops, forward and backward
//   6 the model   7 forward   8 backward   9 loss and optimizer   10 the program
//
// Legend: T tokens in this call, P tokens before it (in the cache), S = P + T, C width of the
// hidden state, V vocabulary, F width of the feed-forward, H query heads, K key and value heads, D
// entries of a head. An array of shape (T, C) has T rows of C entries that lie next to each other.
// A linear map from I to O entries has weights of shape (O, I): one row for each output.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

// All arithmetic is done in this type. The build makes the program twice: `tiny` with float, and
// `tiny_double`, in which finite differences are sharp enough to prove the gradients.
#ifndef TINY_REAL
#define TINY_REAL float
#endif
using real = TINY_REAL;

namespace {

// Every error ends here: what was found and what was expected, in one sentence. main prints it.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// ---- 1 Arrays -----------------------------------------------------------------------------------

// A matrix that owns its numbers; a[i] is row i.
struct Array {
  int rows = 0;
  int cols = 0;
  std::vector<real> data;

  Array() = default;                                                           // empty
  Array(int r, int c) : rows(r), cols(c), data(static_cast<size_t>(r) * c) {}  // zeros

  std::span<real> operator[](int row) {
    return std::span(data).subspan(static_cast<size_t>(row) * cols, cols);
  }
  std::span<const real> operator[](int row) const {
    return std::span(data).subspan(static_cast<size_t>(row) * cols, cols);
  }
};

// The inner product of two rows. Sixteen sums run side by side, so that the processor need not wait
// for one addition before it begins the next.
real dot(std::span<const real> a, std::span<const real> b) {
  constexpr size_t kSums = 16;
  std::array<real, kSums> sums{};
  size_t i = 0;
  for (; i + kSums <= a.size(); i += kSums) {
    for (size_t j = 0; j < kSums; ++j) sums[j] += a[i + j] * b[i + j];
  }
  for (; i < a.size(); ++i) sums[0] += a[i] * b[i];
  return std::accumulate(sums.begin(), sums.end(), real{0});
}

// y += factor * x, row by row: the other half of all linear algebra here.
void add_scaled(std::span<real> y, real factor, std::span<const real> x) {
  for (size_t i = 0; i < y.size(); ++i) y[i] += factor * x[i];
}

void add(Array& y, const Array& x) { add_scaled(y.data, 1, x.data); }

// ---- 2 The file ---------------------------------------------------------------------------------
// GGUF, little-endian:  magic "GGUF", version, number of tensors, number of metadata entries;
// the entries (key, type, value); for each tensor its name, shape, type and offset; padding; the
// bytes of the tensors. Offsets count from the end of the padding.

std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path, ": cannot be opened");
  return {std::istreambuf_iterator<char>(file), {}};
}

// Reads numbers and strings in order and never past the end.
struct Reader {
  std::span<const uint8_t> bytes;
  size_t position = 0;

  template <typename Number>
  Number number() {
    Number value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() {
    const auto characters = take(number<uint64_t>());
    return {characters.begin(), characters.end()};
  }
  std::span<const uint8_t> take(uint64_t count) {
    if (count > bytes.size() - position) {
      fail("the file ends at byte ", bytes.size(), ", but ", count, " more are needed at byte ",
           position);
    }
    position += count;
    return bytes.subspan(position - count, count);
  }
};

// A metadata entry: every kind of number is kept as a double; scalars are lists of one.
struct Entry {
  std::vector<double> numbers;
  std::vector<std::string> texts;
};

struct TensorInfo {
  int rows = 1, cols = 1;
  uint32_t type = 0;
  uint64_t offset = 0;  // bytes, in the whole file
};

void read_value(Reader& reader, uint32_t type, Entry& entry) {
  const auto add = [&](auto number) { entry.numbers.push_back(static_cast<double>(number)); };
  switch (type) {
    case 0: return add(reader.number<uint8_t>());
    case 1: return add(reader.number<int8_t>());
    case 2: return add(reader.number<uint16_t>());
    case 3: return add(reader.number<int16_t>());
    case 4: return add(reader.number<uint32_t>());
    case 5: return add(reader.number<int32_t>());
    case 6: return add(reader.number<float>());
    case 7: return add(reader.number<uint8_t>());  // bool
    case 8: return entry.texts.push_back(reader.text());
    case 10: return add(reader.number<uint64_t>());
    case 11: return add(reader.number<int64_t>());
    case 12: return add(reader.number<double>());
    default: fail("metadata of type ", type, "; GGUF knows 0 to 12");
  }
}

struct Gguf {
  std::string path;
  std::vector<uint8_t> bytes;  // of the whole file
  std::map<std::string, Entry> metadata;
  std::map<std::string, TensorInfo> tensors;

  explicit Gguf(const std::string& path_) : path(path_), bytes(read_file(path_)) {
    constexpr uint32_t kMagic = 0x46554747, kArray = 9;  // "GGUF"; a list of values of one type
    Reader reader{bytes};
    if (reader.number<uint32_t>() != kMagic) fail(path, ": is no GGUF file, its magic is wrong");
    const auto version = reader.number<uint32_t>();
    if (version != 2 && version != 3) fail(path, ": GGUF version ", version, ", expected 2 or 3");
    const auto tensor_count = reader.number<uint64_t>();
    const auto entry_count = reader.number<uint64_t>();
    for (uint64_t i = 0; i < entry_count; ++i) {
      Entry& entry = metadata[reader.text()];
      auto type = reader.number<uint32_t>();
      uint64_t count = 1;
      if (type == kArray) {
        type = reader.number<uint32_t>();
        count = reader.number<uint64_t>();
      }
      for (uint64_t j = 0; j < count; ++j) read_value(reader, type, entry);
    }
    for (uint64_t i = 0; i < tensor_count; ++i) {
      TensorInfo& tensor = tensors[reader.text()];
      const auto dimensions = reader.number<uint32_t>();
      if (dimensions > 2) fail(path, ": a tensor of ", dimensions, " dimensions");
      for (uint32_t d = 0; d < dimensions; ++d) {  // the fastest dimension comes first
        const auto size = reader.number<uint64_t>();
        if (size == 0 || size > 1U << 24) fail(path, ": a dimension of ", size);
        (d == 0 ? tensor.cols : tensor.rows) = static_cast<int>(size);
      }
      tensor.type = reader.number<uint32_t>();
      tensor.offset = reader.number<uint64_t>();
    }
    const auto alignment = static_cast<uint64_t>(number("general.alignment", 32));
    if (alignment == 0) fail(path, ": an alignment of 0");
    const uint64_t start = (reader.position + alignment - 1) / alignment * alignment;
    for (auto& [name, tensor] : tensors) tensor.offset += start;
  }

  const Entry& entry(const std::string& key) const {
    const auto found = metadata.find(key);
    if (found == metadata.end()) fail(path, ": has no metadata '", key, "'");
    return found->second;
  }

  double number(const std::string& key, std::optional<double> otherwise = {}) const {
    if (otherwise && !metadata.contains(key)) return *otherwise;
    const Entry& found = entry(key);
    if (found.numbers.empty()) fail(path, ": metadata '", key, "' is not a number");
    return found.numbers[0];
  }
};

// ---- 3 Number formats ---------------------------------------------------------------------------
// Quantized rows are cut into blocks of 32 numbers. A block holds whole numbers of few bits and
// the f16 factors that turn them back into reals.

// f16: one bit sign, five bits exponent (bias 15), ten bits fraction. Weights are never infinite.
float half_to_float(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int fraction = half & 1023;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

struct Format {
  uint32_t type;       // GGUF's number for it
  int numbers, bytes;  // of a block
};
// F32, F16, Q4_0, Q4_1, Q8_0
constexpr Format kFormats[] = {{0, 1, 4}, {1, 1, 2}, {2, 32, 18}, {3, 32, 20}, {8, 32, 34}};

void decode_block(uint32_t type, Reader& block, std::span<real> out) {
  const auto half = [&] { return static_cast<real>(half_to_float(block.number<uint16_t>())); };
  const real scale = type == 0 ? static_cast<real>(block.number<float>()) : half();
  if (type <= 1) {  // F32, F16
    out[0] = scale;
  } else if (type == 8) {  // Q8_0: scale, 32 signed bytes
    for (real& value : out) value = scale * static_cast<real>(block.number<int8_t>());
  } else {
    // Q4_0: scale, 16 bytes; a number q of 0..15 stands for scale * (q - 8).
    // Q4_1: scale, offset, 16 bytes; q stands for scale * q + offset.
    // Byte j holds number j in its low half and number j + 16 in its high half.
    const real offset = type == 3 ? half() : -8 * scale;
    for (size_t j = 0; j < 16; ++j) {
      const int byte = block.number<uint8_t>();
      out[j] = scale * static_cast<real>(byte & 15) + offset;
      out[j + 16] = scale * static_cast<real>(byte >> 4) + offset;
    }
  }
}

// A tensor of the file as reals; its shape must be the one that the model needs.
Array load(const Gguf& gguf, const std::string& name, int rows, int cols) {
  const auto found = gguf.tensors.find(name);
  if (found == gguf.tensors.end()) fail(gguf.path, ": has no tensor '", name, "'");
  const TensorInfo& tensor = found->second;
  const std::string place = gguf.path + ": tensor '" + name + "' ";
  if (tensor.rows != rows || tensor.cols != cols) {
    fail(place, "has shape (", tensor.rows, ", ", tensor.cols, "), expected (", rows, ", ", cols,
         ")");
  }
  const auto format =
      std::ranges::find_if(kFormats, [&](const Format& f) { return f.type == tensor.type; });
  if (format == std::end(kFormats)) {
    fail(place, "has type ", tensor.type, ", expected F32, F16, Q4_0, Q4_1 or Q8_0");
  }
  if (cols % format->numbers != 0) fail(place, "has rows that are no whole number of blocks");
  Array out(rows, cols);
  const uint64_t size = out.data.size() / format->numbers * format->bytes;
  if (tensor.offset > gguf.bytes.size() || size > gguf.bytes.size() - tensor.offset) {
    fail(place, "ends past the end of the file, which seems to be truncated");
  }
  Reader reader{std::span(gguf.bytes).subspan(tensor.offset, size)};
  for (size_t i = 0; i < out.data.size(); i += format->numbers) {
    decode_block(format->type, reader, std::span(out.data).subspan(i, format->numbers));
  }
  return out;
}

// ---- 4 Tokenizer: byte-level pair merging, as GPT-2 and SmolLM do it, exact for plain ASCII text
// The text is cut into words, each word into bytes, each byte is written as a printable character;
// then the pair of neighbours that comes first in the list of merges is joined, until none is left.

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
// Bytes beyond ASCII count as letters, which is mostly right.
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80); }
bool is_symbol(char c) { return !is_space(c) && !is_digit(c) && !is_letter(c); }

// The length of the first word: a contraction, one digit, letters or symbols with the space before
// them, or white space (without its last character if that may belong to the next word).
size_t word_length(std::string_view text) {
  for (std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (text.starts_with(ending)) return ending.size();
  }
  if (is_digit(text[0])) return 1;
  const size_t first = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  for (auto belongs : {is_letter, is_symbol}) {
    size_t end = first;
    while (end < text.size() && belongs(text[end])) ++end;
    if (end > first) return end;
  }
  size_t end = 0;
  while (end < text.size() && is_space(text[end])) ++end;
  const bool at_end = end == text.size() || is_digit(text[end]);
  return at_end || end == 1 ? end : end - 1;
}

struct Tokenizer {
  std::vector<std::string> tokens;              // (V)
  std::unordered_map<std::string, int> ids;     // the inverse
  std::unordered_map<std::string, int> ranks;   // "left right" -> place in the list of merges
  std::vector<int> controls;                    // ids such as <|im_start|>, found whole in a text
  std::array<std::string, 256> characters;      // byte -> printable character, in UTF-8
  std::unordered_map<std::string, char> bytes;  // the inverse

  explicit Tokenizer(const Gguf& gguf) {
    const std::string kind = gguf.entry("tokenizer.ggml.model").texts.at(0);
    if (kind != "gpt2") fail(gguf.path, ": a tokenizer of kind '", kind, "', expected 'gpt2'");
    tokens = gguf.entry("tokenizer.ggml.tokens").texts;
    for (size_t i = 0; i < tokens.size(); ++i) ids[tokens[i]] = static_cast<int>(i);
    const auto& merges = gguf.entry("tokenizer.ggml.merges").texts;
    for (size_t i = 0; i < merges.size(); ++i) ranks[merges[i]] = static_cast<int>(i);
    const auto& types = gguf.entry("tokenizer.ggml.token_type").numbers;
    for (size_t i = 0; i < std::min(types.size(), tokens.size()); ++i) {
      if (types[i] == 3) controls.push_back(static_cast<int>(i));
    }
    // Bytes that print stand for themselves; the others become the code points from 256 on.
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
      const int code = prints ? byte : next++;
      std::string& character = characters[byte];
      character = static_cast<char>(code);  // UTF-8: one byte below 128, else two
      if (code >= 128) {
        character = static_cast<char>(0xC0 | (code >> 6));
        character += static_cast<char>(0x80 | (code & 63));
      }
      bytes[character] = static_cast<char>(byte);
    }
  }

  void encode_word(std::string_view word, std::vector<int>& out) const {
    std::vector<std::string> parts;
    for (char c : word) parts.push_back(characters[static_cast<uint8_t>(c)]);
    while (true) {
      std::pair<int, size_t> best{INT32_MAX, 0};  // rank and place of the pair to join
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto found = ranks.find(parts[i] + " " + parts[i + 1]);
        if (found != ranks.end()) best = std::min(best, {found->second, i});
      }
      if (best.first == INT32_MAX) break;
      parts[best.second] += parts[best.second + 1];
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best.second) + 1);
    }
    for (const std::string& part : parts) {
      if (!ids.contains(part)) fail("the vocabulary lacks '", part, "'");
      out.push_back(ids.at(part));
    }
  }

  std::vector<int> encode(std::string_view text) const {
    std::vector<int> out;
    while (!text.empty()) {
      // Ordinary text ends where the next control token begins.
      std::pair<size_t, int> next{text.size(), -1};  // place and id of the control token
      for (int id : controls) next = std::min(next, {text.find(tokens[id]), id});
      for (std::string_view rest = text.substr(0, next.first); !rest.empty();) {
        const size_t length = word_length(rest);
        encode_word(rest.substr(0, length), out);
        rest.remove_prefix(length);
      }
      text.remove_prefix(next.first);
      if (next.second < 0) continue;
      out.push_back(next.second);
      text.remove_prefix(tokens[next.second].size());
    }
    return out;
  }

  std::string decode(int token) const {
    const std::string& spelled = tokens.at(static_cast<size_t>(token));
    std::string out;
    for (size_t i = 0, length = 0; i < spelled.size(); i += length) {
      length = (spelled[i] & 0x80) != 0 ? 2 : 1;
      const auto found = bytes.find(spelled.substr(i, length));
      if (found != bytes.end()) out += found->second;
    }
    return out;
  }
};

// ---- 5 Ops, forward and backward ----------------------------------------------------------------
// With L the loss, `dx` stands for dL/dx and has the shape of x. A backward op takes dL/d(output)
// and *adds* to dL/d(inputs), since a value that is used twice has two contributions.

// y (T, O) = x (T, I) times the transpose of w (O, I).
Array matmul(const Array& x, const Array& w) {
  Array y(x.rows, w.rows);
  for (int o = 0; o < w.rows; ++o) {
    for (int t = 0; t < x.rows; ++t) y[t][o] = dot(w[o], x[t]);
  }
  return y;
}

// dx (T, I) += dy (T, O) w;   dw (O, I) += transpose of dy, times x.
void matmul_backward(const Array& x, const Array& w, const Array& dy, Array& dx, Array& dw) {
  for (int o = 0; o < w.rows; ++o) {
    for (int t = 0; t < x.rows; ++t) {
      add_scaled(dx[t], dy[t][o], w[o]);
      add_scaled(dw[o], dy[t][o], x[t]);
    }
  }
}

// 1 / root mean square of a row; `epsilon` keeps it finite.
real inverse_rms(std::span<const real> x, real epsilon) {
  return 1 / std::sqrt(dot(x, x) / static_cast<real>(x.size()) + epsilon);
}

// y (T, C) = x / rms(x) * weight;   x (T, C), weight (1, C).
Array rms_norm(const Array& x, const Array& weight, real epsilon) {
  Array y(x.rows, x.cols);
  for (int t = 0; t < x.rows; ++t) {
    const real r = inverse_rms(x[t], epsilon);
    for (int c = 0; c < x.cols; ++c) y[t][c] = x[t][c] * r * weight[0][c];
  }
  return y;
}

// With g = dy * weight and r = 1 / rms(x):  dx += r g - x r^3 (g . x) / C.  The second term takes
// away what points along x, because making x longer changes nothing.
void rms_norm_backward(const Array& x, const Array& weight, real epsilon, const Array& dy,
                       Array& dx, Array& dweight) {
  for (int t = 0; t < x.rows; ++t) {
    const real r = inverse_rms(x[t], epsilon);
    real along = 0;
    for (int c = 0; c < x.cols; ++c) {
      along += dy[t][c] * weight[0][c] * x[t][c];
      dweight[0][c] += dy[t][c] * x[t][c] * r;
    }
    const real shrink = r * r * r * along / static_cast<real>(x.cols);
    for (int c = 0; c < x.cols; ++c) dx[t][c] += r * dy[t][c] * weight[0][c] - shrink * x[t][c];
  }
}

// Rotary embedding, in place. x (T, heads * D); row t has position `first` + t. Entries 2i and 2i+1
// of a head are a point in the plane, turned by position * base^(-2i / D). A rotation's backward
// is the rotation the other way round: direction -1.
void rotate(Array& x, int first, int head_size, double base, int direction) {
  for (int i = 0; i < head_size; i += 2) {
    const double frequency = std::pow(base, -static_cast<double>(i) / head_size);
    for (int t = 0; t < x.rows; ++t) {
      const double angle = direction * (first + t) * frequency;
      const real cosine = static_cast<real>(std::cos(angle));
      const real sine = static_cast<real>(std::sin(angle));
      for (int at = i; at < x.cols; at += head_size) {
        const real a = x[t][at];
        const real b = x[t][at + 1];
        x[t][at] = a * cosine - b * sine;
        x[t][at + 1] = a * sine + b * cosine;
      }
    }
  }
}

// exp and divide, so that a row is positive and sums to one; the maximum is taken away first, lest
// exp overflow.
void softmax(std::span<real> row) {
  const real top = *std::max_element(row.begin(), row.end());
  real sum = 0;
  for (real& value : row) sum += value = std::exp(value - top);
  for (real& value : row) value /= sum;
}

struct Heads {
  int queries;  // H
  int keys;     // K, a divisor of H: H / K query heads share one key and value head
  int size;     // D

  // Where head h, and the key head that it uses, begin in a row.
  int query_start(int h) const { return h * size; }
  int key_start(int h) const { return h / (queries / keys) * size; }
};

// q (T, H*D), k and v (S, K*D) -> out (T, H*D). Row t has position P + t and sees the rows up to
// there. probabilities (T*H, S) are kept for the backward pass.
Array attention(const Array& q, const Array& k, const Array& v, const Heads& heads,
                Array& probabilities) {
  const int past = k.rows - q.rows;
  const real scale = 1 / std::sqrt(static_cast<real>(heads.size));
  Array out(q.rows, q.cols);
  probabilities = Array(q.rows * heads.queries, k.rows);
  for (int t = 0; t < q.rows; ++t) {
    for (int h = 0; h < heads.queries; ++h) {
      const auto query = q[t].subspan(heads.query_start(h), heads.size);  // (D)
      const auto p = probabilities[t * heads.queries + h].first(past + t + 1);
      for (size_t s = 0; s < p.size(); ++s) {
        const auto key = k[static_cast<int>(s)].subspan(heads.key_start(h), heads.size);
        p[s] = scale * dot(query, key);
      }
      softmax(p);
      for (size_t s = 0; s < p.size(); ++s) {
        const auto value = v[static_cast<int>(s)].subspan(heads.key_start(h), heads.size);
        add_scaled(out[t].subspan(heads.query_start(h), heads.size), p[s], value);
      }
    }
  }
  return out;
}

// Through the weighted sum: dp = dout . v, dv += p dout.  Through softmax: dscore = p (dp - sum of
// p dp).  Through the inner product: dq += dscore k, dk += dscore q.
void attention_backward(const Array& q, const Array& k, const Array& v, const Heads& heads,
                        const Array& probabilities, const Array& dout, Array& dq, Array& dk,
                        Array& dv) {
  const int past = k.rows - q.rows;
  const real scale = 1 / std::sqrt(static_cast<real>(heads.size));
  std::vector<real> dp(k.rows);  // (S)
  for (int t = 0; t < q.rows; ++t) {
    for (int h = 0; h < heads.queries; ++h) {
      const int query_start = heads.query_start(h);
      const int key_start = heads.key_start(h);
      const int visible = past + t + 1;
      const auto p = probabilities[t * heads.queries + h];
      const auto dout_head = dout[t].subspan(query_start, heads.size);
      real mean = 0;
      for (int s = 0; s < visible; ++s) {
        dp[s] = dot(dout_head, v[s].subspan(key_start, heads.size));
        add_scaled(dv[s].subspan(key_start, heads.size), p[s], dout_head);
        mean += p[s] * dp[s];
      }
      for (int s = 0; s < visible; ++s) {
        const real dscore = scale * p[s] * (dp[s] - mean);
        add_scaled(dq[t].subspan(query_start, heads.size), dscore,
                   k[s].subspan(key_start, heads.size));
        add_scaled(dk[s].subspan(key_start, heads.size), dscore,
                   q[t].subspan(query_start, heads.size));
      }
    }
  }
}

real sigmoid(real x) { return 1 / (1 + std::exp(-x)); }

// y = silu(gate) * up, entry by entry, with silu(x) = x sigmoid(x);   all (T, F).
Array swiglu(const Array& gate, const Array& up) {
  Array y(gate.rows, gate.cols);
  for (size_t i = 0; i < y.data.size(); ++i) {
    y.data[i] = gate.data[i] * sigmoid(gate.data[i]) * up.data[i];
  }
  return y;
}

// silu'(x) = s + x s (1 - s) with s = sigmoid(x).
void swiglu_backward(const Array& gate, const Array& up, const Array& dy, Array& dgate,
                     Array& dup) {
  for (size_t i = 0; i < dy.data.size(); ++i) {
    const real x = gate.data[i];
    const real s = sigmoid(x);
    dgate.data[i] += dy.data[i] * up.data[i] * (s + x * s * (1 - s));
    dup.data[i] += dy.data[i] * x * s;
  }
}

// ---- 6 The model --------------------------------------------------------------------------------

struct Config {
  int vocabulary = 0, width = 0, feed_forward = 0;  // V, C, F
  int layers = 0;
  Heads heads{};
  double rope_base = 10000;
  real epsilon = 0;   // of the norms
  bool tied = false;  // the output matrix is the embedding
};

struct Layer {
  Array attention_norm, ffn_norm;  // (1, C)
  Array query, key, value;         // (H*D, C), (K*D, C), (K*D, C)
  Array output;                    // (C, H*D)
  Array gate, up, down;            // (F, C), (F, C), (C, F)
};

// One array of the model: its name in a GGUF file and its shape.
struct Parameter {
  std::string name;
  Array* array;
  int rows, cols;
};

// Weights; and, since they have the same shapes, also their gradients and the optimizer's averages.
struct Model {
  explicit Model(const Config& c) : config(c), layers(c.layers) {  // zeros
    for (Parameter& p : parameters()) *p.array = Array(p.rows, p.cols);
  }
  std::vector<Parameter> parameters();
  const Array& output_matrix() const { return config.tied ? embedding : output; }
  Array& output_matrix() { return config.tied ? embedding : output; }

  Config config;
  Array embedding;  // (V, C)
  std::vector<Layer> layers;
  Array output_norm;  // (1, C)
  Array output;       // (V, C), empty if tied
};

std::vector<Parameter> Model::parameters() {
  const int width = config.width, hidden = config.feed_forward;
  const int query_width = config.heads.queries * config.heads.size;
  const int key_width = config.heads.keys * config.heads.size;
  std::vector<Parameter> all{{"token_embd", &embedding, config.vocabulary, width},
                             {"output_norm", &output_norm, 1, width}};
  if (!config.tied) all.push_back({"output", &output, config.vocabulary, width});
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    Layer& layer = layers[i];
    all.push_back({block + "attn_norm", &layer.attention_norm, 1, width});
    all.push_back({block + "attn_q", &layer.query, query_width, width});
    all.push_back({block + "attn_k", &layer.key, key_width, width});
    all.push_back({block + "attn_v", &layer.value, key_width, width});
    all.push_back({block + "attn_output", &layer.output, width, query_width});
    all.push_back({block + "ffn_norm", &layer.ffn_norm, 1, width});
    all.push_back({block + "ffn_gate", &layer.gate, hidden, width});
    all.push_back({block + "ffn_up", &layer.up, hidden, width});
    all.push_back({block + "ffn_down", &layer.down, width, hidden});
  }
  for (Parameter& parameter : all) parameter.name += ".weight";
  return all;
}

int positive(const Gguf& gguf, const std::string& key) {
  const double value = gguf.number(key);
  if (!(value >= 1 && value <= 1 << 24)) fail(gguf.path, ": '", key, "' is ", value);
  return static_cast<int>(value);
}

Model load_model(const Gguf& gguf) {
  const std::string family = gguf.entry("general.architecture").texts.at(0);
  if (family != "llama") fail(gguf.path, ": architecture '", family, "', expected 'llama'");
  if (gguf.tensors.contains("rope_freqs.weight")) {
    fail(gguf.path, ": scales its rotary frequencies; this program does not");
  }
  Config c;
  c.vocabulary = static_cast<int>(gguf.entry("tokenizer.ggml.tokens").texts.size());
  c.width = positive(gguf, "llama.embedding_length");
  c.feed_forward = positive(gguf, "llama.feed_forward_length");
  c.layers = positive(gguf, "llama.block_count");
  c.heads.queries = positive(gguf, "llama.attention.head_count");
  c.heads.keys = positive(gguf, "llama.attention.head_count_kv");
  c.heads.size = c.width / c.heads.queries;
  c.rope_base = gguf.number("llama.rope.freq_base", 10000);
  c.epsilon = static_cast<real>(gguf.number("llama.attention.layer_norm_rms_epsilon"));
  c.tied = !gguf.tensors.contains("output.weight");
  if (c.heads.queries % c.heads.keys != 0 || c.heads.size % 2 != 0 ||
      gguf.number("llama.rope.dimension_count", c.heads.size) != c.heads.size) {
    fail(gguf.path, ": its heads do not fit together");
  }
  Model model(c);
  for (Parameter& p : model.parameters()) *p.array = load(gguf, p.name, p.rows, p.cols);
  return model;
}

// ---- 7 Forward ----------------------------------------------------------------------------------

// Keys (rotated) and values of all tokens so far, for each layer: (P, K*D).
struct Cache {
  std::vector<Array> keys, values;

  explicit Cache(const Config& c)
      : keys(c.layers, Array(0, c.heads.keys * c.heads.size)), values(keys) {}
  int tokens() const { return keys.empty() ? 0 : keys[0].rows; }
};

void append(Array& array, const Array& rows) {
  array.data.insert(array.data.end(), rows.data.begin(), rows.data.end());
  array.rows += rows.rows;
}

// What the backward pass needs to know about a layer's forward pass.
struct LayerTrace {
  Array input, input_normed;    // (T, C)
  Array query;                  // (T, H*D), rotated
  Array probabilities;          // (T*H, S)
  Array attended;               // (T, H*D)
  Array middle, middle_normed;  // (T, C), between the two halves
  Array gate, up, activated;    // (T, F)
};

struct Trace {
  std::vector<LayerTrace> layers;
  Array last, last_normed;  // (T, C)
};

// Runs T tokens after those in the cache, extends the cache, returns the logits (T, V).
Array forward(const Model& model, std::span<const int> tokens, Cache& cache, Trace& trace) {
  const Config& c = model.config;
  const int past = cache.tokens();
  trace.layers.assign(c.layers, {});

  Array x(static_cast<int>(tokens.size()), c.width);  // (T, C): the hidden state
  for (int t = 0; t < x.rows; ++t) {
    if (tokens[t] < 0 || tokens[t] >= c.vocabulary) {
      fail("token ", tokens[t], " is outside of the vocabulary of ", c.vocabulary);
    }
    std::ranges::copy(model.embedding[tokens[t]], x[t].begin());
  }
  for (int i = 0; i < c.layers; ++i) {
    const Layer& w = model.layers[i];
    LayerTrace& a = trace.layers[i];
    a.input = x;
    a.input_normed = rms_norm(x, w.attention_norm, c.epsilon);
    a.query = matmul(a.input_normed, w.query);
    Array key = matmul(a.input_normed, w.key);  // (T, K*D)
    rotate(a.query, past, c.heads.size, c.rope_base, 1);
    rotate(key, past, c.heads.size, c.rope_base, 1);
    append(cache.keys[i], key);
    append(cache.values[i], matmul(a.input_normed, w.value));
    a.attended = attention(a.query, cache.keys[i], cache.values[i], c.heads, a.probabilities);
    add(x, matmul(a.attended, w.output));

    a.middle = x;
    a.middle_normed = rms_norm(x, w.ffn_norm, c.epsilon);
    a.gate = matmul(a.middle_normed, w.gate);
    a.up = matmul(a.middle_normed, w.up);
    a.activated = swiglu(a.gate, a.up);
    add(x, matmul(a.activated, w.down));
  }
  trace.last_normed = rms_norm(x, model.output_norm, c.epsilon);
  trace.last = std::move(x);
  return matmul(trace.last_normed, model.output_matrix());
}

// The same without a past and without a future.
Array forward(const Model& model, std::span<const int> tokens) {
  Cache cache(model.config);
  Trace trace;
  return forward(model, tokens, cache, trace);
}

// ---- 8 Backward: the forward pass read from its end ---------------------------------------------

// Adds the gradient of the loss to `d`. The cache holds the tokens of this pass and no others.
void backward(const Model& model, std::span<const int> tokens, const Cache& cache,
              const Trace& trace, const Array& dlogits, Model& d) {
  const Config& c = model.config;
  const int count = static_cast<int>(tokens.size());  // T
  Array dnormed(count, c.width);
  matmul_backward(trace.last_normed, model.output_matrix(), dlogits, dnormed, d.output_matrix());
  Array dx(count, c.width);  // (T, C): of the hidden state, from here on in place
  rms_norm_backward(trace.last, model.output_norm, c.epsilon, dnormed, dx, d.output_norm);

  for (int i = c.layers - 1; i >= 0; --i) {
    const Layer& w = model.layers[i];
    const LayerTrace& a = trace.layers[i];
    Layer& dw = d.layers[i];

    // x = middle + down(swiglu(gate(n), up(n))), n = norm(middle). The sum hands dx to both of its
    // terms: what is in dx already belongs to `middle`, and the rest is added.
    Array dactivated(count, c.feed_forward);
    matmul_backward(a.activated, w.down, dx, dactivated, dw.down);
    Array dgate(count, c.feed_forward), dup(count, c.feed_forward);
    swiglu_backward(a.gate, a.up, dactivated, dgate, dup);
    Array dmiddle_normed(count, c.width);
    matmul_backward(a.middle_normed, w.gate, dgate, dmiddle_normed, dw.gate);
    matmul_backward(a.middle_normed, w.up, dup, dmiddle_normed, dw.up);
    rms_norm_backward(a.middle, w.ffn_norm, c.epsilon, dmiddle_normed, dx, dw.ffn_norm);

    // middle = input + output(attention(query(n), key(n), value(n))), n = norm(input).
    Array dattended(count, a.attended.cols);
    matmul_backward(a.attended, w.output, dx, dattended, dw.output);
    Array dquery(count, a.query.cols), dkey(count, w.key.rows), dvalue(count, w.value.rows);
    attention_backward(a.query, cache.keys[i], cache.values[i], c.heads, a.probabilities, dattended,
                       dquery, dkey, dvalue);
    rotate(dquery, 0, c.heads.size, c.rope_base, -1);
    rotate(dkey, 0, c.heads.size, c.rope_base, -1);
    Array dinput_normed(count, c.width);
    matmul_backward(a.input_normed, w.query, dquery, dinput_normed, dw.query);
    matmul_backward(a.input_normed, w.key, dkey, dinput_normed, dw.key);
    matmul_backward(a.input_normed, w.value, dvalue, dinput_normed, dw.value);
    rms_norm_backward(a.input, w.attention_norm, c.epsilon, dinput_normed, dx, dw.attention_norm);
  }
  for (int t = 0; t < count; ++t) add_scaled(d.embedding[tokens[t]], 1, dx[t]);
}

// ---- 9 Loss and optimizer -----------------------------------------------------------------------

// The mean of -log p(next token) over the positions that have a next token. logits (T, V) are
// replaced by the gradient: (p - [the token came]) / number of such positions.
double cross_entropy(Array& logits, std::span<const int> tokens) {
  const int count = logits.rows - 1;
  double loss = 0;
  for (int t = 0; t < count; ++t) {
    const auto row = logits[t];
    softmax(row);
    real& came = row[tokens[t + 1]];
    loss -= std::log(std::max(static_cast<double>(came), 1e-30)) / count;
    came -= 1;
    for (real& value : row) value /= static_cast<real>(count);
  }
  std::ranges::fill(logits[count], real{0});
  return loss;
}

double loss_of(const Model& model, std::span<const int> tokens) {
  Array logits = forward(model, tokens);
  return cross_entropy(logits, tokens);
}

// Returns the loss, and its gradient in `gradient`.
double loss_and_gradient(const Model& model, std::span<const int> tokens, Model& gradient) {
  for (Parameter& p : gradient.parameters()) std::ranges::fill(p.array->data, real{0});
  Cache cache(model.config);
  Trace trace;
  Array logits = forward(model, tokens, cache, trace);
  const double loss = cross_entropy(logits, tokens);
  backward(model, tokens, cache, trace, logits, gradient);
  return loss;
}

// AdamW (Loshchilov and Hutter 2019, algorithm 2): a step is the running mean of the gradient over
// the root of the running mean of its square, both corrected for their start at zero; the weights
// of matrices decay towards zero.
struct AdamW {
  explicit AdamW(const Config& config) : mean(config), square(config) {}

  void step(Model& model, Model& gradient) {
    ++steps;
    const real mean_correction = static_cast<real>(1 - std::pow(mean_keep, steps));
    const real square_correction = static_cast<real>(1 - std::pow(square_keep, steps));
    const auto weights = model.parameters(), gradients = gradient.parameters();
    const auto means = mean.parameters(), squares = square.parameters();
    for (size_t p = 0; p < weights.size(); ++p) {
      const real shrink = weights[p].rows > 1 ? 1 - rate * decay : 1;
      for (size_t i = 0; i < weights[p].array->data.size(); ++i) {
        const real g = gradients[p].array->data[i];
        real& m = means[p].array->data[i];
        real& v = squares[p].array->data[i];
        real& w = weights[p].array->data[i];
        m = mean_keep * m + (1 - mean_keep) * g;
        v = square_keep * v + (1 - square_keep) * g * g;
        const real update = m / mean_correction / (std::sqrt(v / square_correction) + epsilon);
        w = shrink * w - rate * update;
      }
    }
  }

  real rate = real(2e-5), mean_keep = real(0.9), square_keep = real(0.999);
  real epsilon = real(1e-8), decay = real(0.01);
  int steps = 0;
  Model mean, square;
};

// ---- 10 The program -----------------------------------------------------------------------------

}  // namespace

#include "selftest.h"  // proves every derivative above with finite differences

namespace {

// Of processor time.
double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// Always takes the most probable token; stops at the end token or after `limit` tokens.
void generate(const Gguf& gguf, const std::string& prompt, int limit) {
  const Tokenizer tokenizer(gguf);
  const Model model = load_model(gguf);
  const int end = static_cast<int>(gguf.number("tokenizer.ggml.eos_token_id", -1));
  std::vector<int> next = tokenizer.encode(prompt);
  if (next.empty()) fail("the prompt is empty; a continuation needs something to continue");
  Cache cache(model.config);
  Trace trace;
  std::printf("%s", prompt.c_str());
  const double start = seconds();
  int count = 0;
  for (; count < limit; ++count) {
    const Array logits = forward(model, next, cache, trace);
    const auto last = logits[logits.rows - 1];
    next = {static_cast<int>(std::ranges::max_element(last) - last.begin())};
    if (next[0] == end) break;
    std::printf("%s", tokenizer.decode(next[0]).c_str());
    std::fflush(stdout);
  }
  std::fprintf(stderr, "\n%d tokens in %.1f s\n", count, seconds() - start);
}

void print_logits(const Gguf& gguf, std::span<const int> tokens) {
  const Model model = load_model(gguf);
  const Array logits = forward(model, tokens);  // (T, V)
  for (int t = 0; t < logits.rows; ++t) {
    for (real value : logits[t]) std::printf("%.9g ", static_cast<double>(value));
    std::printf("\n");
  }
}

// Each step learns from the next window of the text and prints the loss before the step.
void train(const Gguf& gguf, const std::string& path, int steps) {
  const std::vector<uint8_t> text = read_file(path);
  const std::vector<int> tokens = Tokenizer(gguf).encode(std::string(text.begin(), text.end()));
  constexpr size_t kWindow = 64;  // T
  if (tokens.size() < 2) fail(path, ": has fewer than two tokens");
  Model model = load_model(gguf);
  Model gradient(model.config);
  AdamW optimizer(model.config);
  const size_t window = std::min(kWindow, tokens.size());
  const size_t windows = tokens.size() / window;
  for (int step = 0; step < steps; ++step) {
    const double start = seconds();
    const auto part = std::span(tokens).subspan(step % windows * window, window);
    const double loss = loss_and_gradient(model, part, gradient);
    optimizer.step(model, gradient);
    std::printf("step %d loss %.4f (%.1f s)\n", step, loss, seconds() - start);
    std::fflush(stdout);
  }
}

int to_int(const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || *end != '\0') fail("'", text, "' is not a whole number");
  return value;
}

constexpr const char* kUsage =
    "tiny MODEL PROMPT [COUNT]        continue the prompt by at most COUNT (64) tokens\n"
    "tiny MODEL --tokens TEXT         print the token ids of a text\n"
    "tiny MODEL --logits ID...        print the logits, one line a position\n"
    "tiny MODEL --train FILE [STEPS]  train on a text for STEPS (5) steps, print the loss\n"
    "tiny --selftest                  check gradients, cache, training, formats\n"
    "MODEL is a GGUF file of the llama family (F32, F16, Q4_0, Q4_1, Q8_0).\n";

// Returns the program's exit status.
int run(std::span<const std::string> arguments) {
  const std::string mode = arguments.size() > 1 ? arguments[1] : "";
  const auto count_or = [&](size_t place, int otherwise) {
    return arguments.size() > place ? to_int(arguments[place]) : otherwise;
  };
  if (arguments.size() == 1 && arguments[0] == "--selftest") {
    self_test();  // selftest.h
  } else if (mode == "--logits" && arguments.size() >= 3) {
    std::vector<int> tokens;
    for (const std::string& id : arguments.subspan(2)) tokens.push_back(to_int(id));
    print_logits(Gguf(arguments[0]), tokens);
  } else if (mode == "--tokens" && arguments.size() == 3) {
    for (int id : Tokenizer(Gguf(arguments[0])).encode(arguments[2])) std::printf("%d ", id);
    std::printf("\n");
  } else if (mode == "--train" && arguments.size() >= 3) {
    train(Gguf(arguments[0]), arguments[2], count_or(3, 5));
  } else if (!mode.empty() && !mode.starts_with("--")) {
    generate(Gguf(arguments[0]), mode, count_or(2, 64));
  } else {
    std::fputs(kUsage, stderr);
    return 2;
  }
  return 0;
}

}  // namespace

int main(int count, char** values) {
  try {
    return run(std::vector<std::string>(values + 1, values + count));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tiny: %s\n", error.what());
    return 1;
  }
}
