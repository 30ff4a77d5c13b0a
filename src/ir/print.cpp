// The printer of ir/text.h.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "ir/text.h"

namespace hone::ir {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\{:02X}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string number_text(double value) {
  if (!std::isfinite(value)) return fmt::format("0x{:016X}", std::bit_cast<std::uint64_t>(value));
  // MLIR wants a point: 1.0e-05, not 1e-05. 17 digits bring the same bits back.
  std::string text = fmt::format("{}", value);
  const std::size_t exponent = text.find('e');
  const std::string mantissa = text.substr(0, exponent);
  if (mantissa.find('.') == std::string::npos) {
    text = mantissa + ".0" + (exponent == std::string::npos ? "" : text.substr(exponent));
  }
  return text;
}

std::string attribute_text(const Attribute& attribute) {
  struct Visitor {
    std::string operator()(bool value) const { return value ? "true" : "false"; }
    std::string operator()(std::int64_t value) const { return fmt::format("{} : i64", value); }
    std::string operator()(double value) const { return number_text(value) + " : f64"; }
    std::string operator()(const std::string& value) const { return quoted(value); }
    std::string operator()(const Integers& values) const {
      if (values.empty()) return "array<i64>";
      return fmt::format("array<i64: {}>", fmt::join(values, ", "));
    }
    std::string operator()(const Numbers& values) const {
      std::string out;
      for (const double value : values) out += (out.empty() ? ": " : ", ") + number_text(value);
      return "array<f64" + out + ">";
    }
    std::string operator()(const Strings& values) const {
      std::string out = "[";
      for (const std::string& value : values) out += (out.size() > 1 ? ", " : "") + quoted(value);
      return out + "]";
    }
  };
  return std::visit(Visitor{}, attribute);
}

std::string attributes_text(const Attributes& attributes) {
  if (attributes.empty()) return "";
  std::string out;
  for (const auto& [name, value] : attributes) {
    out += (out.empty() ? " {" : ", ") + name + " = " + attribute_text(value);
  }
  return out + "}";
}

std::string types_text(const Graph& graph, std::span<const ValueId> ids) {
  std::string out;
  for (const ValueId id : ids) out += (out.empty() ? "" : ", ") + graph.type(id).text();
  return "(" + out + ")";
}

// %7 for a single result; %7#1 for the second of several.
std::string value_text(const Graph& graph, ValueId id) {
  const Operation& producer = graph.producer(id);
  if (producer.results.size() == 1) return fmt::format("%{}", id);
  return fmt::format("%{}#{}", producer.results[0], id - producer.results[0]);
}

std::string operands_text(const Graph& graph, std::span<const ValueId> ids) {
  std::string out;
  for (const ValueId id : ids) out += (out.empty() ? "" : ", ") + value_text(graph, id);
  return "(" + out + ")";
}

}  // namespace

std::string print(const Graph& graph) {
  std::string out = "\"hone.graph\"() ({\n";
  for (const Operation& operation : graph.operations) {
    out += "  ";
    if (operation.results.size() == 1) out += fmt::format("%{} = ", operation.results[0]);
    if (operation.results.size() > 1) {
      out += fmt::format("%{}:{} = ", operation.results[0], operation.results.size());
    }
    out +=
        fmt::format("\"hone.{}\"{}{} : {} -> {}\n", operation.op->name,
                    operands_text(graph, operation.operands), attributes_text(operation.attributes),
                    types_text(graph, operation.operands), types_text(graph, operation.results));
  }
  Attributes names;
  names.set("names", graph.output_names);
  out += fmt::format("  \"hone.return\"{}{} : {} -> ()\n", operands_text(graph, graph.outputs),
                     attributes_text(names), types_text(graph, graph.outputs));
  out += fmt::format("}}) {{name = {}}} : () -> ()\n", quoted(graph.name));
  return out;
}

}  // namespace hone::ir
