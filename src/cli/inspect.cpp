// hone inspect: what a model file holds, and what running it will take.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "cli/registry.h"
#include "engine/memory.h"

namespace hone::cli {
namespace {

using engine::ModelSource;
using formats::TensorRecord;

struct Options {
  std::string model;
  bool tensors = false;
  std::int64_t context = 4096;
  std::int64_t batch = 256;
};

struct Total {
  std::int64_t tensors = 0;
  std::int64_t weights = 0;
  std::int64_t bytes = 0;
};

std::map<DType, Total> totals_of(const ModelSource& source) {
  std::map<DType, Total> totals;
  for (const TensorRecord& tensor : source.tensors()) {
    Total& total = totals[tensor.dtype];
    ++total.tensors;
    total.weights += tensor.elements();
    total.bytes += static_cast<std::int64_t>(tensor.data.size());
  }
  return totals;
}

std::string one_line(std::string text, std::size_t most) {
  std::string line;
  for (const char letter : text) {
    line += letter == '\n' ? std::string("\\n") : std::string(1, letter);
  }
  line = visible(line);
  if (line.size() <= most) return line;
  while (most > 0 && (static_cast<unsigned char>(line[most]) & 0xC0) == 0x80) --most;
  return line.substr(0, most) + "…";
}

std::string metadata_text(const ModelSource& source) {
  Table table({"key", "type", "value"});
  for (const auto& entry : source.metadata().entries()) {
    table.row({one_line(entry.key, 60), formats::meta_type_name(entry.value),
               one_line(formats::meta_value_text(entry.value, 4), 60)});
  }
  return table.text(2);
}

std::string tensors_text(const ModelSource& source) {
  Table table({"tensor", "type", "shape", "bytes", "offset"}, "lllrr");
  for (const TensorRecord& tensor : source.tensors()) {
    table.row({formats::printable(tensor.name), std::string(dtype_name(tensor.dtype)),
               formats::shape_text(tensor.shape),
               human_count(static_cast<std::int64_t>(tensor.data.size())),
               human_count(static_cast<std::int64_t>(tensor.file_offset))});
  }
  return table.text(2);
}

std::string totals_text(const ModelSource& source) {
  Table table({"type", "tensors", "weights", "bytes", "bits a weight"}, "lrrrr");
  Total all;
  const auto add = [&table](std::string name, const Total& total) {
    const double bits = total.weights == 0 ? 0
                                           : 8.0 * static_cast<double>(total.bytes) /
                                                 static_cast<double>(total.weights);
    table.row({std::move(name), human_count(total.tensors), human_count(total.weights),
               human_count(total.bytes), fmt::format("{:.2f}", bits)});
  };
  for (const auto& [dtype, total] : totals_of(source)) {
    add(std::string(dtype_name(dtype)), total);
    all.tensors += total.tensors;
    all.weights += total.weights;
    all.bytes += total.bytes;
  }
  add("all", all);
  return table.text(2);
}

std::string memory_text(const engine::MemoryNeed& need, const Options& options) {
  Table table({"cache", "1,000 tokens", fmt::format("{} tokens", human_count(options.context)),
               "weights", "workspace", "in all"},
              "lrrrrr");
  const auto add = [&](const char* kind, std::int64_t each) {
    const std::int64_t cache = each * options.context;
    table.row({kind, human_bytes(each * 1000), human_bytes(cache), human_bytes(need.weights),
               human_bytes(need.workspace), human_bytes(cache + need.weights + need.workspace)});
  };
  add("f16", need.cache_per_token.f16);
  add("int8", need.cache_per_token.int8);
  add("f32", need.cache_per_token.f32);
  return table.text(2);
}

// Vocabularies run to megabytes: of long arrays the length alone.
constexpr std::size_t kMostElements = 64;

template <typename T>
Json json_of(const T& value) {
  return Json(value);
}
Json json_of(const formats::MetaArray& array) {
  return std::visit(
      [](const auto& elements) -> Json {
        if (elements.size() > kMostElements) return Json{{"length", elements.size()}};
        Json list = Json::array();
        for (std::size_t i = 0; i < elements.size(); ++i) {
          list.push_back(
              static_cast<typename std::decay_t<decltype(elements)>::value_type>(elements[i]));
        }
        return list;
      },
      array);
}

Json document(const ModelSource& source, const Result<engine::MemoryNeed>& need,
              const Options& options) {
  Json value{{"path", source.path()}, {"file_bytes", source.file_bytes()}};
  value["metadata"] = Json::object();
  for (const auto& entry : source.metadata().entries()) {
    value["metadata"][entry.key] =
        std::visit([](const auto& held) { return json_of(held); }, entry.value);
  }
  value["totals"] = Json::object();
  for (const auto& [dtype, total] : totals_of(source)) {
    value["totals"][std::string(dtype_name(dtype))] = {
        {"tensors", total.tensors}, {"weights", total.weights}, {"bytes", total.bytes}};
  }
  value["tensors"] = Json::array();
  for (const TensorRecord& tensor : source.tensors()) {
    value["tensors"].push_back({{"name", tensor.name},
                                {"dtype", dtype_name(tensor.dtype)},
                                {"shape", tensor.shape},
                                {"bytes", tensor.data.size()},
                                {"offset", tensor.file_offset}});
  }
  if (need) {
    const auto kind = [&](std::int64_t each) {
      return Json{{"bytes_per_token", each},
                  {"bytes", each * options.context},
                  {"total_bytes", each * options.context + need->weights + need->workspace}};
    };
    value["memory"] = Json{{"context", options.context},
                           {"weights_bytes", need->weights},
                           {"workspace_bytes", need->workspace},
                           {"cache",
                            {{"f16", kind(need->cache_per_token.f16)},
                             {"int8", kind(need->cache_per_token.int8)},
                             {"f32", kind(need->cache_per_token.f32)}}}};
  }
  return value;
}

void declare(Options& options, Arguments& arguments) {
  arguments.model(options.model);
  arguments.flag("--tensors", options.tensors, "list the tensors, too");
  arguments.option("-c,--context", options.context, "tokens that the cache is to hold",
                   Integers{1, 1 << 24});
  arguments.option("--batch", options.batch, "tokens of a prompt that are run at once",
                   Integers{1, 8192});
}

Status run(const Options& options, Output& output) {
  const auto source = ModelSource::open(options.model);
  if (!source) return source.error();
  const auto need = engine::memory_of(*source, options.batch);
  if (output.json()) {
    output.document(document(*source, need, options));
    return {};
  }
  output.print(fmt::format("{}: {}, {} tensors\n\n", visible(source->path()),
                           human_bytes(source->file_bytes()), source->tensors().size()));
  output.print(output.bold("Metadata") + "\n" + metadata_text(*source) + "\n");
  if (options.tensors) {
    output.print(output.bold("Tensors") + "\n" + tensors_text(*source) + "\n");
  }
  output.print(output.bold("Types") + "\n" + totals_text(*source) + "\n");
  output.print(output.bold("Memory that running it will need") + "\n");
  if (need) {
    output.print(memory_text(*need, options));
  } else {
    output.print(fmt::format("  hone cannot run it: {}\n", visible(need.error().text())));
  }
  return {};
}

}  // namespace

const Verb& inspect_verb() {
  static const Verb kVerb = make_verb(
      "inspect", "what a model holds, and the memory that running it will need",
      "hone inspect smollm2\nhone inspect model.gguf --tensors --context 8192", declare, run);
  return kVerb;
}

}  // namespace hone::cli
