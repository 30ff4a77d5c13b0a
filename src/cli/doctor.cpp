// hone doctor: what this machine has, what hone will use of it, and what is missing, in words.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/system.h"
#include "cli/registry.h"
#include "engine/limits.h"
#include "kernels/registry.h"

namespace hone::cli {
namespace {

struct Options {
  bool no_measure = false;
};

struct FoundModel {
  std::string file;
  std::int64_t bytes = 0;
};

struct Report {
  CpuInfo cpu;
  MemoryInfo memory;
  int cores = 0;
  std::string isa;
  int threads = 0;
  engine::MachineLimits limits;
  bool measured = false;
  std::string cache;
  std::vector<FoundModel> models;
  std::vector<std::string> missing;  // sentences
};

std::vector<FoundModel> models_in(const std::string& cache) {
  namespace fs = std::filesystem;
  std::vector<FoundModel> models;
  std::error_code code;
  for (fs::directory_iterator at(fs::path(cache) / "models", code), end; !code && at != end;
       at.increment(code)) {
    std::error_code ignored;
    if (at->path().extension() != ".gguf" || !at->is_regular_file(ignored)) continue;
    const auto bytes = static_cast<std::int64_t>(at->file_size(ignored));
    models.push_back({at->path().filename().string(), bytes});
  }
  std::sort(models.begin(), models.end(),
            [](const FoundModel& a, const FoundModel& b) { return a.file < b.file; });
  return models;
}

void find_missing(Report& report) {
  const CpuInfo& cpu = report.cpu;
  std::vector<std::string>& missing = report.missing;
  if (report.isa == "scalar") {
    missing.emplace_back(
        "The processor offers neither AVX2 nor AVX-512: hone works, but many times slower.");
  } else if (report.isa == "avx2" && !cpu.has("avx512_vnni") && !cpu.has("avx_vnni")) {
    missing.emplace_back(
        "No VNNI instructions: quantized matrices are multiplied with plain AVX2, at a third of "
        "the "
        "speed.");
  }
  if (report.isa == "avx2" && cpu.has("avx512f")) {
    missing.emplace_back(
        "The processor has AVX-512, but not all parts that hone needs (BW, DQ, VL, CD, VNNI), or "
        "it "
        "is switched off (HONE_ISA).");
  }
  if (report.cores < cpu.logical_cores) {
    missing.push_back(fmt::format("This process may use {} of the machine's {} cores.",
                                  report.cores, cpu.logical_cores));
  }
  constexpr std::int64_t kSmall = 512 << 20;
  if (report.memory.available < kSmall) {
    missing.push_back(fmt::format("Only {} of memory are free: close other programs first.",
                                  human_bytes(report.memory.available)));
  }
  if (report.cache.empty()) {
    missing.emplace_back("There is no cache folder: set HONE_CACHE or HOME to keep models.");
  } else if (report.models.empty()) {
    missing.emplace_back("No model is in the cache yet: `hone fetch smollm2` gets one of 98 MB.");
  }
}

Report examine(const Options& options) {
  Report report;
  report.cpu = cpu_info();
  report.memory = memory_info();
  report.cores = usable_cores();
  report.isa = kernels::kernels().isa;
  report.cache = cache_folder();
  report.models = models_in(report.cache);
  ThreadPool pool(0);
  report.threads = pool.size();
  if (!options.no_measure) {
    report.limits = engine::measure_limits(pool);
    report.measured = true;
  }
  find_missing(report);
  return report;
}

std::string giga(double per_second, const char* unit) {
  if (per_second <= 0) return "no such instruction";
  return fmt::format("{:.1f} {}", per_second / 1e9, unit);
}

void print(const Report& report, Output& output) {
  const auto size = [](std::int64_t bytes) { return bytes > 0 ? human_bytes(bytes) : "unknown"; };
  std::string text = output.bold("This machine has") + "\n";
  const auto line = [&text](const char* label, const std::string& value) {
    text += fmt::format("  {:<18} {}\n", label, value);
  };
  line("processor", report.cpu.name.empty() ? "unknown" : report.cpu.name);
  line("instruction sets", fmt::format("{}", fmt::join(report.cpu.flags, " ")));
  line("cores",
       fmt::format("{}, of which this process may use {}", report.cpu.logical_cores, report.cores));
  line("memory",
       fmt::format("{}, {} free", size(report.memory.total), size(report.memory.available)));
  line("caches", fmt::format("L1 {}, L2 {}, L3 {}", size(report.cpu.l1d), size(report.cpu.l2),
                             size(report.cpu.l3)));
  if (report.measured) {
    line("reads", fmt::format("{} from memory", giga(report.limits.read_bytes, "GB/s")));
    line("computes",
         fmt::format("int8 {}, bf16 {}, f32 {}", giga(report.limits.int8_operations, "GOPS"),
                     giga(report.limits.bf16_operations, "GOPS"),
                     giga(report.limits.f32_operations, "GOPS")));
  }
  text += "\n" + output.bold("hone will use") + "\n";
  line("kernels", report.isa);
  line("threads", fmt::format("{}", report.threads));
  line("cache folder", report.cache.empty() ? "none" : visible(report.cache));
  for (const FoundModel& model : report.models) {
    line(&model == report.models.data() ? "models" : "",
         fmt::format("{} ({})", visible(model.file), human_bytes(model.bytes)));
  }
  text += "\n" + output.bold("Missing") + "\n";
  if (report.missing.empty()) text += "  nothing\n";
  for (const std::string& sentence : report.missing) text += fmt::format("  {}\n", sentence);
  output.print(text);
}

Json document(const Report& report) {
  Json value{{"cpu",
              {{"name", report.cpu.name},
               {"flags", report.cpu.flags},
               {"logical_cores", report.cpu.logical_cores},
               {"usable_cores", report.cores},
               {"l1d_bytes", report.cpu.l1d},
               {"l2_bytes", report.cpu.l2},
               {"l3_bytes", report.cpu.l3}}},
             {"memory",
              {{"total_bytes", report.memory.total}, {"available_bytes", report.memory.available}}},
             {"kernels", report.isa},
             {"threads", report.threads},
             {"cache_folder", report.cache}};
  if (report.measured) {
    value["limits"] = Json{{"read_bytes_per_second", report.limits.read_bytes},
                           {"int8_operations_per_second", report.limits.int8_operations},
                           {"bf16_operations_per_second", report.limits.bf16_operations},
                           {"f32_operations_per_second", report.limits.f32_operations}};
  }
  value["models"] = Json::array();
  for (const FoundModel& model : report.models) {
    value["models"].push_back({{"file", model.file}, {"bytes", model.bytes}});
  }
  value["missing"] = report.missing;
  return value;
}

void declare(Options& options, Arguments& arguments) {
  arguments.flag("--no-measure", options.no_measure, "leave out the measurements (1.5 s)");
}

Status run(const Options& options, Output& output) {
  const Report report = examine(options);
  if (output.json()) {
    output.document(document(report));
  } else {
    print(report, output);
  }
  return {};
}

}  // namespace

const Verb& doctor_verb() {
  static const Verb kVerb =
      make_verb("doctor", "what this machine has, what hone will use, and what is missing",
                "hone doctor\nhone doctor --json --no-measure", declare, run);
  return kVerb;
}

}  // namespace hone::cli
