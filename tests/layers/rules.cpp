// The checks behind layers_test.
// SPDX-License-Identifier: Apache-2.0
#include "rules.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>
#include <string_view>

namespace hone::house {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxLines = 800;
constexpr int kMaxTinyLines = 1000;
constexpr int kMaxRecipeLines = 150;
constexpr std::size_t kMaxColumns = 100;
constexpr std::size_t kMaxPath = 60;
constexpr int kMaxFolderDepth = 3;  // below src

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::string> lines_of(const fs::path& path) {
  std::istringstream stream(text_of(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool has_extension(const fs::path& path, std::initializer_list<std::string_view> extensions) {
  return std::find(extensions.begin(), extensions.end(), path.extension().string()) !=
         extensions.end();
}

// Regular files below root/folder, as paths relative to root with '/', sorted. Hidden folders and
// what Python leaves behind are not sources.
std::vector<std::string> files_below(const fs::path& root, const std::string& folder) {
  std::vector<std::string> files;
  if (!fs::is_directory(root / folder)) return files;
  for (auto at = fs::recursive_directory_iterator(root / folder); at != fs::end(at); ++at) {
    const std::string name = at->path().filename().string();
    if (at->is_directory() && (name.front() == '.' || name == "__pycache__")) {
      at.disable_recursion_pending();
    } else if (at->is_regular_file()) {
      files.push_back(at->path().lexically_relative(root).generic_string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string join(const std::set<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

bool is_inside(const std::string& path, const std::string& folder) {
  return path == folder || path.rfind(folder + "/", 0) == 0;
}

std::size_t code_points(const std::string& line) {
  return static_cast<std::size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

int line_limit(const std::string& file) {
  if (file == "tiny/hone.cpp") return kMaxTinyLines;
  if (is_inside(file, "recipes")) return kMaxRecipeLines;
  return kMaxLines;
}

// How the members of a list.inc are found, where it is not "HONE_X(name, …) has name.cpp".
struct ListForm {
  std::string_view folder;
  enum { kComments, kDefinitions } by;
  std::string_view extension;
  std::string_view definition;  // kDefinitions: what stands before the name in the member's file
};
constexpr std::array kListForms = {
    // A family is a file with several kernels: a comment "// family.inl" names it at its lines.
    ListForm{"src/kernels", ListForm::kComments, ".inl", ""},
    // A family of formats shares a file: one of them defines decode_<name>.
    ListForm{"src/quant", ListForm::kDefinitions, ".cpp", "decode_"},
    // A rule lowers several ops, a file holds several rules: one of them defines lower_<rule>.
    ListForm{"src/passes/lower", ListForm::kDefinitions, ".cpp", "lower_"},
};

struct ListLine {
  std::size_t line;
  std::vector<std::string> words;  // the identifiers between the parentheses
};

std::vector<ListLine> list_lines(const std::vector<std::string>& lines) {
  static const std::regex kEntry(R"(^HONE_[A-Z_0-9]+\(([^)]*))");
  static const std::regex kWord(R"([A-Za-z_][A-Za-z_0-9]*)");
  std::vector<ListLine> entries;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::smatch match;
    if (!std::regex_search(lines[i], match, kEntry)) continue;
    const std::string arguments = match[1];
    ListLine entry{i + 1, {}};
    for (std::sregex_iterator word(arguments.begin(), arguments.end(), kWord), end; word != end;
         ++word) {
      entry.words.push_back(word->str());
    }
    entries.push_back(entry);
  }
  return entries;
}

std::string at(const std::string& file, std::size_t line) {
  return file + ":" + std::to_string(line) + ": ";
}

// The files of a folder that a list must name: no tests, and no support, which has a header.
std::set<std::string> member_stems(const fs::path& root, const std::string& folder,
                                   std::string_view extension) {
  std::set<std::string> stems;
  for (const auto& entry : fs::directory_iterator(root / folder)) {
    const std::string stem = entry.path().stem().string();
    if (entry.path().extension().string() != extension) continue;
    if (std::regex_search(stem, std::regex("(_test|_bench|_fuzz)$")) || stem == "main") continue;
    if (extension == ".cpp" && fs::exists(root / folder / (stem + ".h"))) continue;
    stems.insert(stem);
  }
  return stems;
}

void check_list_of_files(const fs::path& root, const std::string& folder, Findings& findings) {
  const std::string file = folder + "/list.inc";
  std::set<std::string> listed;
  for (const ListLine& entry : list_lines(lines_of(root / file))) {
    if (entry.words.empty()) continue;
    const std::string& name = entry.words.front();
    if (!listed.insert(name).second) findings.push_back(at(file, entry.line) + name + " twice");
    if (!fs::exists(root / folder / (name + ".cpp"))) {
      findings.push_back(at(file, entry.line) + "names " + name + ", but there is no " + folder +
                         "/" + name + ".cpp");
    }
  }
  for (const std::string& stem : member_stems(root, folder, ".cpp")) {
    if (listed.count(stem) == 0) {
      findings.push_back(folder + "/" + stem + ".cpp has no line in " + file +
                         " (shared code has a header of its name)");
    }
  }
}

void check_list_by_comments(const fs::path& root, const ListForm& form, Findings& findings) {
  const std::string folder(form.folder);
  const std::string file = folder + "/list.inc";
  const std::vector<std::string> lines = lines_of(root / file);
  std::set<std::string> named;
  // "// wave.inl, other.inl; …" above the lines, or behind one.
  const std::regex heading(R"(\b([A-Za-z_0-9]+)\)" + std::string(form.extension) + R"(\b)");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t comment = lines[i].find("//");
    if (comment == std::string::npos) continue;
    const std::string words = lines[i].substr(comment);
    for (std::sregex_iterator word(words.begin(), words.end(), heading), end; word != end; ++word) {
      const std::string stem = (*word)[1];
      named.insert(stem);
      if (!fs::exists(root / folder / (stem + std::string(form.extension)))) {
        findings.push_back(at(file, i + 1) + "heads a file that does not exist: " + stem);
      }
    }
  }
  for (const std::string& stem : member_stems(root, folder, form.extension)) {
    if (named.count(stem) == 0) {
      findings.push_back(folder + "/" + stem + std::string(form.extension) + " heads no lines of " +
                         file);
    }
  }
  // Each listed kernel is a word of the file that heads it, or of any member.
  std::string all;
  for (const std::string& stem : named) {
    all += text_of(root / folder / (stem + std::string(form.extension)));
  }
  for (const ListLine& entry : list_lines(lines)) {
    if (entry.words.empty()) continue;
    if (!std::regex_search(all, std::regex("\\b" + entry.words.front() + "\\b"))) {
      findings.push_back(at(file, entry.line) + entry.words.front() + " is in no member's file");
    }
  }
}

void check_list_by_definitions(const fs::path& root, const ListForm& form, Findings& findings) {
  const std::string folder(form.folder);
  const std::string file = folder + "/list.inc";
  const std::vector<ListLine> entries = list_lines(lines_of(root / file));
  std::map<std::string, std::string> members;
  for (const std::string& stem : member_stems(root, folder, form.extension)) {
    members[stem] = text_of(root / folder / (stem + std::string(form.extension)));
  }
  std::set<std::string> used;
  for (const ListLine& entry : entries) {
    if (entry.words.empty()) continue;
    const std::string symbol = std::string(form.definition) + entry.words.back();
    const std::regex word("\\b" + symbol + "\\b");
    bool found = false;
    for (const auto& [stem, text] : members) {
      if (!std::regex_search(text, word)) continue;
      found = true;
      used.insert(stem);
    }
    if (!found) findings.push_back(at(file, entry.line) + symbol + " is in no file of " + folder);
  }
  for (const auto& [stem, text] : members) {
    if (used.count(stem) == 0) {
      findings.push_back(folder + "/" + stem + std::string(form.extension) + " has no line in " +
                         file);
    }
  }
}

}  // namespace

std::string Layers::room_of(const std::string& path) const {
  std::string best;
  for (const std::string& room : rooms) {
    if (path.rfind(room + "/", 0) == 0 && room.size() > best.size()) best = room;
  }
  return best;
}

bool Layers::may_include(const std::string& from, const std::string& to) const {
  if (from == to) return true;
  const auto row = allowed.find(from);
  return row != allowed.end() && row->second.count(to) != 0;
}

Layers parse_layers(const std::string& table) {
  Layers layers;
  std::istringstream stream(table);
  for (std::string line; std::getline(stream, line);) {
    const std::size_t colon = line.find(':');
    if (line.empty() || line.front() == '#' || colon == std::string::npos) continue;
    const std::string room = line.substr(0, colon);
    layers.rooms.push_back(room);
    std::istringstream words(line.substr(colon + 1));
    for (std::string word; words >> word;) layers.allowed[room].insert(word);
  }
  return layers;
}

Findings check_table(const fs::path& root) {
  Findings findings;
  const Layers layers = parse_layers(text_of(root / "src/layers.txt"));
  std::set<std::string> above;
  for (const std::string& room : layers.rooms) {
    const auto row = layers.allowed.find(room);
    if (row != layers.allowed.end()) {
      for (const std::string& word : row->second) {
        if (above.count(word) == 0) {
          findings.push_back("src/layers.txt: " + room + " names " + word +
                             ", which has no row above it: the table would have a cycle");
        }
      }
    }
    if (!above.insert(room).second) findings.push_back("src/layers.txt: " + room + " twice");
  }
  if (layers.rooms.empty()) findings.push_back("src/layers.txt: no rooms");
  return findings;
}

Findings check_includes(const fs::path& root) {
  static const std::regex kInclude(R"re(^\s*#\s*include\s*"([^"]+)")re");
  Findings findings;
  const Layers layers = parse_layers(text_of(root / "src/layers.txt"));
  for (const std::string& file : files_below(root, "src")) {
    if (file == "src/layers.txt") continue;
    const std::string from = layers.room_of(file.substr(4));
    if (from.empty()) {
      findings.push_back(file + ": lies in no room of src/layers.txt");
      continue;
    }
    if (!has_extension(file, {".cpp", ".h", ".inl", ".inc"})) continue;
    const std::vector<std::string> lines = lines_of(root / file);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      std::smatch match;
      if (!std::regex_search(lines[i], match, kInclude)) continue;
      const std::string to = layers.room_of(match[1]);
      // Recipes lie beside src.
      const fs::path folder = to == "recipes" ? root : root / "src";
      if (to.empty() || !fs::exists(folder / match[1].str())) {
        findings.push_back(at(file, i + 1) + "\"" + match[1].str() +
                           "\" is no file by its room path (other libraries: <…>)");
      } else if (!layers.may_include(from, to)) {
        std::set<std::string> allowed{from};
        if (layers.allowed.count(from) != 0) allowed.merge(std::set(layers.allowed.at(from)));
        findings.push_back(at(file, i + 1) + from + " may not include " + to + " (\"" +
                           match[1].str() + "\"); allowed: " + join(allowed));
      }
    }
  }
  return findings;
}

Findings check_sizes(const fs::path& root) {
  Findings findings;
  for (const char* folder :
       {"src", "tests", "tiny", "recipes", "bench", "cmake", "scripts", "docs", "python"}) {
    for (const std::string& file : files_below(root, folder)) {
      // Safetensors files have names that their format prescribes (model-00001-of-00002).
      if (file.size() > kMaxPath && !has_extension(file, {".safetensors"})) {
        findings.push_back(file + ": a path of " + std::to_string(file.size()) +
                           " characters, at most " + std::to_string(kMaxPath));
      }
      const auto depth = std::count(file.begin(), file.end(), '/') - 1;
      if (is_inside(file, "src") && depth > kMaxFolderDepth) {
        findings.push_back(file + ": " + std::to_string(depth) + " folders deep, at most " +
                           std::to_string(kMaxFolderDepth));
      }
      if (!has_extension(file, {".cpp", ".h", ".inl", ".inc", ".py", ".sh", ".cmake"})) continue;
      const std::vector<std::string> lines = lines_of(root / file);
      if (static_cast<int>(lines.size()) > line_limit(file)) {
        findings.push_back(file + ": " + std::to_string(lines.size()) + " lines, at most " +
                           std::to_string(line_limit(file)));
      }
      for (std::size_t i = 0; i < lines.size(); ++i) {
        if (code_points(lines[i]) > kMaxColumns) {
          findings.push_back(at(file, i + 1) + std::to_string(code_points(lines[i])) +
                             " columns, at most " + std::to_string(kMaxColumns));
        }
      }
    }
  }
  return findings;
}

Findings check_lists(const fs::path& root) {
  Findings findings;
  for (const std::string& file : files_below(root, "src")) {
    if (fs::path(file).filename() != "list.inc") continue;
    const std::string folder = fs::path(file).parent_path().generic_string();
    const auto* form = std::find_if(kListForms.begin(), kListForms.end(),
                                    [&folder](const ListForm& f) { return f.folder == folder; });
    if (form == kListForms.end()) {
      check_list_of_files(root, folder, findings);
    } else if (form->by == ListForm::kComments) {
      check_list_by_comments(root, *form, findings);
    } else {
      check_list_by_definitions(root, *form, findings);
    }
  }
  return findings;
}

Findings check_licence(const fs::path& root) {
  Findings findings;
  for (const char* folder : {"src", "tests", "tiny", "recipes", "bench"}) {
    for (const std::string& file : files_below(root, folder)) {
      if (!has_extension(file, {".cpp", ".h", ".inl"})) continue;
      const std::vector<std::string> lines = lines_of(root / file);
      const auto end = lines.begin() + std::min<std::ptrdiff_t>(6, std::ssize(lines));
      const bool found = std::any_of(lines.begin(), end, [](const std::string& line) {
        return line == "// SPDX-License-Identifier: Apache-2.0";
      });
      if (!found) findings.push_back(file + ": no SPDX line among the first six");
    }
  }
  return findings;
}

Findings long_functions(const fs::path& root, int limit) {
  static const std::regex kOpening(R"(^(  )?[A-Za-z_~\[].*\)[^;=]*\{$)");
  static const std::regex kOther(
      R"(^(  )?(namespace|class|struct|enum|union|extern|if|for|while)\b)");
  Findings findings;
  for (const std::string& file : files_below(root, "src")) {
    if (!has_extension(file, {".cpp", ".h", ".inl"})) continue;
    const std::vector<std::string> lines = lines_of(root / file);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (!std::regex_search(lines[i], kOpening) || std::regex_search(lines[i], kOther)) continue;
      if (lines[i].find("](") != std::string::npos) continue;  // a call with a lambda
      const std::string closing = lines[i].front() == ' ' ? "  }" : "}";
      std::size_t end = i + 1;
      while (end < lines.size() && lines[end] != closing) ++end;
      const auto length = static_cast<int>(end - i + 1);
      if (length > limit) {
        findings.push_back(at(file, i + 1) + std::to_string(length) + " lines: " + lines[i]);
      }
    }
  }
  return findings;
}

}  // namespace hone::house
