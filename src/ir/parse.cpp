// The parser of ir/text.h: recursive descent over the part of MLIR's generic form that print
// writes.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <unordered_map>

#include "ir/text.h"

namespace hone::ir {
namespace {

// No tensor of a model comes near; sizes beyond would overflow somewhere below.
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;

class Parser {
 public:
  Parser(std::string_view text, const OpLookup& lookup) : text_(text), lookup_(lookup) {}

  Result<Graph> run() {
    if (!expect("\"hone.graph\"") || !expect("(") || !expect(")") || !expect("(") || !expect("{")) {
      return error();
    }
    while (ok_ && !peek("\"hone.return\"")) {
      if (peek("}")) fail("a \"hone.return\" before the graph ends");
      operation();
    }
    if (ok_) return_operation();
    Attributes attributes;
    if (!ok_ || !expect("}") || !expect(")") || !attribute_dictionary(attributes) || !expect(":") ||
        !expect("(") || !expect(")") || !expect("->") || !expect("(") || !expect(")")) {
      return error();
    }
    skip_space();
    if (at_ != text_.size()) {
      fail("the end of the text");
      return error();
    }
    graph_.name = std::string(attributes.text("name"));
    HONE_RETURN_IF_ERROR(verify(graph_));
    return std::move(graph_);
  }

 private:
  Error error() const {
    std::size_t line = 1;
    std::size_t column = 1;
    for (std::size_t i = 0; i < error_at_ && i < text_.size(); ++i) {
      column = text_[i] == '\n' ? 1 : column + 1;
      line += text_[i] == '\n' ? 1 : 0;
    }
    const std::string found =
        error_at_ >= text_.size()
            ? std::string("the end of the text")
            : fmt::format(
                  "'{}'",
                  text_.substr(error_at_, text_.substr(error_at_).find('\n')).substr(0, 40));
    return Error{ErrorCode::kCorrupt,
                 "the IR text does not parse",
                 fmt::format("line {}, column {}", line, column),
                 found,
                 expected_,
                 ""};
  }

  bool fail(std::string expected) {
    if (ok_) {
      ok_ = false;
      error_at_ = at_;
      expected_ = std::move(expected);
    }
    return false;
  }

  void skip_space() {
    while (at_ < text_.size()) {
      if (text_[at_] == '/' && text_.substr(at_, 2) == "//") {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' ||
                 text_[at_] == '\r') {
        ++at_;
      } else {
        break;
      }
    }
  }
  bool peek(std::string_view token) {
    skip_space();
    return text_.substr(at_, token.size()) == token;
  }
  bool accept(std::string_view token) {
    if (!ok_ || !peek(token)) return false;
    at_ += token.size();
    return true;
  }
  bool expect(std::string_view token) { return accept(token) || fail(fmt::format("'{}'", token)); }

  std::string word() {
    skip_space();
    const std::size_t start = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                  text_[at_] == '_' || text_[at_] == '.')) {
      ++at_;
    }
    return std::string(text_.substr(start, at_ - start));
  }

  std::string string_literal() {
    std::string out;
    if (!expect("\"")) return out;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] != '\\') {
        out += text_[at_++];
        continue;
      }
      if (at_ + 1 < text_.size() && (text_[at_ + 1] == '"' || text_[at_ + 1] == '\\')) {
        out += text_[at_ + 1];
        at_ += 2;
        continue;
      }
      unsigned code = 0;
      if (at_ + 3 > text_.size() ||
          std::from_chars(text_.data() + at_ + 1, text_.data() + at_ + 3, code, 16).ptr !=
              text_.data() + at_ + 3) {
        fail("an escape \\\", \\\\ or two hexadecimal digits");
        return out;
      }
      out += static_cast<char>(code);
      at_ += 3;
    }
    expect("\"");
    return out;
  }

  template <typename Number>
  Number number() {
    skip_space();
    Number value{};
    const auto [end, status] =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (status != std::errc{}) {
      fail("a number");
      return value;
    }
    at_ = static_cast<std::size_t>(end - text_.data());
    return value;
  }

  ValueId value_reference() {
    if (!expect("%")) return -1;
    const auto base = number<std::int64_t>();
    const std::int64_t index = accept("#") ? number<std::int64_t>() : 0;
    const auto found = ids_.find(base);
    if (ok_ && (found == ids_.end() || index < 0 ||
                index >= static_cast<std::int64_t>(found->second.size()))) {
      fail("a value that was made before");
      return -1;
    }
    return ok_ ? found->second[static_cast<std::size_t>(index)] : -1;
  }

  bool dimensions(Shape& shape, std::string* trailing) {
    // 4x576xf32: numbers separated by 'x', then (for tensors) the element type.
    std::int64_t elements = 1;
    for (;;) {
      skip_space();
      if (at_ >= text_.size() || std::isdigit(static_cast<unsigned char>(text_[at_])) == 0) break;
      shape.push_back(number<std::int64_t>());
      if (ok_ && (shape.back() < 1 || shape.back() > kMostElements / elements)) {
        return fail("extents from 1 on, of at most 2^40 elements");
      }
      elements *= shape.back();
      if (!ok_ || at_ >= text_.size() || text_[at_] != 'x') return ok_;
      ++at_;
    }
    if (trailing != nullptr) *trailing = word();
    return ok_;
  }

  Type type() {
    Type out;
    std::string dtype;
    if (accept("tensor<")) {
      dimensions(out.shape, &dtype);
    } else if (expect("!hone.array<")) {
      dtype = word();
      expect(",");
      const std::string layout = word();
      bool known = false;
      for (const Layout candidate :
           {Layout::kRowMajor, Layout::kRows16, Layout::kInt8Rows, Layout::kCache}) {
        if (layout == layout_name(candidate)) {
          out.layout = candidate;
          known = true;
        }
      }
      if (!known) fail("a layout: row_major, rows16, int8_rows or cache");
      expect(",");
      dimensions(out.shape, nullptr);
    }
    const auto known = dtype_from_name(dtype);
    if (ok_ && !known) fail("a known element type");
    if (known) out.dtype = *known;
    expect(">");
    return out;
  }

  std::vector<Type> type_list() {
    std::vector<Type> out;
    expect("(");
    while (ok_ && !accept(")")) {
      if (!out.empty()) expect(",");
      out.push_back(type());
    }
    return out;
  }

  Attribute attribute_value() {
    if (accept("true")) return true;
    if (accept("false")) return false;
    if (peek("\"")) return string_literal();
    if (accept("array<i64")) {
      Integers values;
      if (accept(":")) {
        do {
          values.push_back(number<std::int64_t>());
        } while (ok_ && accept(","));
      }
      expect(">");
      return values;
    }
    if (accept("array<f64")) {
      Numbers values;
      if (accept(":")) {
        do {
          values.push_back(peek("0x") ? bits() : number<double>());
        } while (ok_ && accept(","));
      }
      expect(">");
      return values;
    }
    if (accept("[")) {
      Strings values;
      while (ok_ && !accept("]")) {
        if (!values.empty()) expect(",");
        values.push_back(string_literal());
      }
      return values;
    }
    return scalar();
  }

  // 0x and the bits of an f64: how infinities and NaNs are written.
  double bits() {
    std::uint64_t value = 0;
    if (!expect("0x")) return 0;
    const auto end =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), value, 16).ptr;
    at_ = static_cast<std::size_t>(end - text_.data());
    return std::bit_cast<double>(value);
  }

  Attribute scalar() {
    skip_space();
    const std::size_t start = at_;
    if (peek("0x")) {
      const double value = bits();
      expect(":");
      expect("f64");
      return value;
    }
    const auto value = number<double>();
    const std::size_t number_end = at_;
    expect(":");
    if (accept("f64")) return value;
    if (!expect("i64")) return value;
    std::int64_t integer = 0;
    const auto [end, status] =
        std::from_chars(text_.data() + start, text_.data() + text_.size(), integer);
    if (status != std::errc{} || end != text_.data() + number_end) fail("an integer of 64 bits");
    return integer;
  }

  bool attribute_dictionary(Attributes& attributes) {
    if (!accept("{")) return ok_;
    while (ok_ && !accept("}")) {
      if (!attributes.empty()) expect(",");
      const std::string name = word();
      if (name.empty()) fail("an attribute name");
      expect("=");
      attributes.set(name, attribute_value());
    }
    return ok_;
  }

  std::vector<ValueId> operand_list() {
    std::vector<ValueId> out;
    expect("(");
    while (ok_ && !accept(")")) {
      if (!out.empty()) expect(",");
      out.push_back(value_reference());
    }
    return out;
  }

  void check_types(const std::vector<ValueId>& operands, const std::vector<Type>& types) {
    if (ok_ && graph_.types(operands) != types) fail("the types that the operands were made with");
  }

  void operation() {
    std::int64_t base = -1;
    std::int64_t count = 0;
    if (accept("%")) {
      base = number<std::int64_t>();
      count = accept(":") ? number<std::int64_t>() : 1;
      expect("=");
    }
    const std::string name = string_literal();
    const bool ours = name.starts_with("hone.");
    const OpDescriptor* op = ours ? lookup_(name.substr(5)) : nullptr;
    if (ok_ && op == nullptr) {
      fail(fmt::format("a known op, not '{}'", name));
      return;
    }
    Operation made{op, operand_list(), {}, {}};
    attribute_dictionary(made.attributes);
    expect(":");
    check_types(made.operands, type_list());
    expect("->");
    const std::vector<Type> results = type_list();
    if (ok_ && static_cast<std::int64_t>(results.size()) != count) fail("as many types as results");
    if (!ok_) return;
    if (count > 0 && ids_.contains(base)) {
      fail("a value number that is not taken yet");
      return;
    }
    for (const Type& type : results) {
      made.results.push_back(static_cast<ValueId>(graph_.values.size()));
      graph_.values.push_back({type, static_cast<std::int32_t>(graph_.operations.size())});
    }
    ids_[base] = made.results;
    graph_.operations.push_back(std::move(made));
  }

  void return_operation() {
    expect("\"hone.return\"");
    graph_.outputs = operand_list();
    Attributes attributes;
    attribute_dictionary(attributes);
    const Attribute* names = attributes.find("names");
    const auto* list = names != nullptr ? std::get_if<Strings>(names) : nullptr;
    if (list != nullptr) graph_.output_names = *list;
    expect(":");
    check_types(graph_.outputs, type_list());
    expect("->");
    expect("(");
    expect(")");
  }

  std::string_view text_;
  const OpLookup& lookup_;
  std::size_t at_ = 0;
  bool ok_ = true;
  std::size_t error_at_ = 0;
  std::string expected_;
  Graph graph_;
  std::unordered_map<std::int64_t, std::vector<ValueId>> ids_;
};

}  // namespace

Result<Graph> parse(std::string_view text, const OpLookup& lookup) {
  return Parser(text, lookup).run();
}

}  // namespace hone::ir
