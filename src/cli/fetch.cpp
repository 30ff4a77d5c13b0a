// hone fetch: known models, files of the hub, and any address into the cache.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/nearest.h"
#include "base/system.h"
#include "cli/download.h"
#include "cli/package.h"
#include "cli/registry.h"
#include "engine/model_source.h"

namespace hone::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHub = "https://huggingface.co";

struct Options {
  std::string name;
  std::string sha256;
  std::optional<std::string> output;
  std::optional<std::string> endpoint;
  std::string revision = "main";
  bool force = false;
};

void declare(Options& options, Arguments& arguments) {
  arguments.optional_positional(
      "NAME", options.name,
      "a known model or data set, hf:owner/repository/file, or an address; none: list");
  arguments.flag("--force", options.force, "fetch it even if it is there");
  arguments.option("--sha256", options.sha256, "the checksum that an address's file must have",
                   "HEX");
  arguments.option("-o,--output", options.output, "where to write it instead of the cache", "FILE");
  arguments.option("--endpoint", options.endpoint,
                   "where hf: looks; else the variable HF_ENDPOINT, else the public hub", "URL");
  arguments.option("--revision", options.revision, "branch, tag or commit of hf:", "NAME");
}

void list_known(Output& output) {
  Json document;
  Table table({"name", "also", "what", "size", "in the cache"}, "lllrl");
  for (const engine::KnownFile& file : engine::known_files()) {
    std::error_code code;
    const bool there = fs::exists(engine::known_path(file), code);
    document[std::string(file.folder)].push_back(
        {{"name", file.name},
         {"aliases", std::vector<std::string>(file.aliases.begin(), file.aliases.end())},
         {"bytes", file.bytes},
         {"sha256", file.sha256},
         {"cached", there}});
    table.row({std::string(file.name), fmt::format("{}", fmt::join(file.aliases, ", ")),
               std::string(file.folder), human_bytes(file.bytes), there ? "yes" : "no"});
  }
  if (output.json()) {
    output.document(document);
  } else {
    output.print(table.text());
  }
}

std::string percent_encoded(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    const bool plain = (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') ||
                       (code >= 'A' && code <= 'Z') ||
                       std::string_view("-._~/").find(letter) != std::string_view::npos;
    out += plain ? std::string(1, letter) : fmt::format("%{:02X}", code);
  }
  return out;
}

// "hf:owner/repository/path/file" as an address.
Result<std::string> hub_address(const Options& options) {
  const std::string_view rest = std::string_view(options.name).substr(3);
  const std::size_t owner = rest.find('/');
  const std::size_t repository = owner == rest.npos ? owner : rest.find('/', owner + 1);
  if (owner == 0 || repository == rest.npos || repository == owner + 1 ||
      repository + 1 == rest.size() || rest.find("..") != rest.npos) {
    return Error{ErrorCode::kInvalidArgument,
                 "this names no file of the hub",
                 "the command line",
                 options.name,
                 "hf:owner/repository/file.gguf",
                 ""};
  }
  const char* variable = std::getenv("HF_ENDPOINT");  // NOLINT before any thread
  std::string endpoint = options.endpoint.value_or(
      variable != nullptr && *variable != '\0' ? std::string(variable) : std::string(kHub));
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return fmt::format("{}/{}/resolve/{}/{}", endpoint, percent_encoded(rest.substr(0, repository)),
                     percent_encoded(options.revision),
                     percent_encoded(rest.substr(repository + 1)));
}

// The last part of an address's path.
Result<std::string> file_name_of(const std::string& address) {
  std::string path = address.substr(0, address.find_first_of("?#"));
  const std::size_t host = path.find("://");
  const std::size_t slash = path.rfind('/');
  std::string name = host == path.npos || slash < host + 3 ? "" : path.substr(slash + 1);
  const bool hidden = name.empty() || name[0] == '.' || name.find('%') != name.npos;
  if (!hidden) return name;
  return Error{ErrorCode::kInvalidArgument,
               "the address does not end with a file's name",
               address,
               name,
               "https://host/folder/model.gguf",
               "say where to write it with --output FILE"};
}

struct Target {
  const engine::KnownFile* known = nullptr;
  std::string address;
  fs::path path;
};

Result<Target> target_of(const Options& options) {
  Target target;
  std::string name;
  target.known = engine::find_known(options.name);
  if (target.known != nullptr) {
    name = target.known->file;
  } else if (options.name.starts_with("hf:")) {
    auto address = hub_address(options);
    if (!address) return address.error();
    target.address = *std::move(address);
  } else if (options.name.find("://") != options.name.npos) {
    target.address = options.name;
  } else {
    std::vector<std::string_view> names;
    for (const engine::KnownFile& file : engine::known_files()) {
      names.push_back(file.name);
      names.insert(names.end(), file.aliases.begin(), file.aliases.end());
    }
    const std::string meant = nearest(options.name, names);
    return Error{
        ErrorCode::kNotFound,
        fmt::format("hone knows nothing called '{}'", options.name),
        "the command line",
        "",
        fmt::format("one of {}, hf:owner/repository/file, or an address", fmt::join(names, ", ")),
        meant.empty() ? "" : fmt::format("did you mean '{}'?", meant)};
  }
  if (options.output) {
    target.path = *options.output;
    return target;
  }
  if (name.empty()) {
    auto found = file_name_of(target.address);
    if (!found) return found.error();
    name = *std::move(found);
  }
  const std::string cache = cache_folder();
  if (cache.empty()) {
    return Error{ErrorCode::kNotFound,
                 "there is no cache folder",
                 "",
                 "neither HONE_CACHE nor HOME",
                 "",
                 "set HONE_CACHE, or say where to write with --output FILE"};
  }
  target.path = target.known != nullptr ? fs::path(engine::known_path(*target.known))
                                        : fs::path(cache) / engine::kModelsFolder / name;
  return target;
}

// Whether the file is there, as far as that shows without reading it.
bool is_there(const Target& target) {
  std::error_code code;
  if (!fs::is_regular_file(target.path, code)) return false;
  if (target.known == nullptr) return true;
  return static_cast<std::int64_t>(fs::file_size(target.path, code)) == target.known->bytes;
}

Status check_sha256(std::string& text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'F' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  const bool digits = text.find_first_not_of("0123456789abcdef") == text.npos;
  if (text.empty() || (digits && text.size() == 64)) return {};
  return Error{ErrorCode::kInvalidArgument,
               "this is no SHA-256",
               "--sha256",
               text,
               "64 hexadecimal digits",
               ""};
}

Status fetch(const Options& options, const Target& target, Output& output, Json& result) {
  std::error_code code;
  if (target.path.has_parent_path()) fs::create_directories(target.path.parent_path(), code);
  if (code) {
    return Error{ErrorCode::kIo,
                 "cannot make the folder",
                 target.path.parent_path().string(),
                 code.message(),
                 "",
                 ""};
  }
  const bool quiet = !output.shows_progress();
  if (target.known != nullptr) {
    HONE_RETURN_IF_ERROR(fetch_package(*target.known, target.path.string(), quiet));
    result["sha256"] = target.known->sha256;
    return {};
  }
  DownloadOptions how;
  how.sha256 = options.sha256;
  how.quiet = quiet;
  HONE_RETURN_IF_ERROR(check_sha256(how.sha256));
  const auto done = download(target.address, target.path.string(), how);
  if (!done) return done.error();
  result["sha256"] = done->sha256;
  result["resumed_from"] = done->resumed_from;
  return {};
}

Status run(const Options& options, Output& output) {
  if (options.name.empty()) {
    list_known(output);
    return {};
  }
  const auto target = target_of(options);
  if (!target) return target.error();
  const bool present = !options.force && is_there(*target);
  Json result{{"path", target->path.string()}, {"fetched", !present}};
  if (!present) HONE_RETURN_IF_ERROR(fetch(options, *target, output, result));
  std::error_code code;
  const auto bytes = static_cast<std::int64_t>(fs::file_size(target->path, code));
  result["bytes"] = bytes;
  if (output.json()) {
    output.document(result);
  } else {
    output.print(fmt::format("{} ({}{})\n", visible(target->path.string()), human_bytes(bytes),
                             present ? ", was there already" : ""));
  }
  return {};
}

}  // namespace

const Verb& fetch_verb() {
  static const Verb kVerb =
      make_verb("fetch", "get a model, or examples for recipes, into the cache",
                "hone fetch smollm2\nhone fetch mnist\nhone fetch hf:owner/repository/model.gguf\n"
                "hone fetch https://host/model.gguf --sha256 HEX",
                declare, run);
  return kVerb;
}

}  // namespace hone::cli
