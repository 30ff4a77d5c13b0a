// SPDX-License-Identifier: Apache-2.0
#include "feedback/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/descriptor.h"
#include "base/timing.h"

namespace hone::feedback {
namespace {

struct Pipe {
  Descriptor read, write;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return Error{ErrorCode::kIo, "a pipe cannot be made", "", std::strerror(errno), "", ""};
  }
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

// For what the program reads: a socket, since writing to a pipe that nobody reads ends the process.
Result<Pipe> make_input() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return Error{ErrorCode::kIo, "a socket cannot be made", "", std::strerror(errno), "", ""};
  }
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

Error failed(const std::string& command, std::string found, std::string expected,
             const std::string& complaint) {
  return Error{
      ErrorCode::kIo,
      "the program gave no answer",
      command,
      complaint.empty() ? std::move(found) : fmt::format("{}; it said: {}", found, complaint),
      std::move(expected),
      "try it alone: its input comes on standard input, its answer goes to the output"};
}

// A child that has not been waited for. Killed with all that it started if it is let go.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) {
      kill();
      wait();
    }
  }
  void kill() const { ::kill(-pid_, SIGKILL); }
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }
  // Whether it ended within so many seconds; its status then.
  bool wait_for(double seconds, int& status) {
    const double end = seconds_now() + seconds;
    for (;;) {
      const pid_t done = ::waitpid(pid_, &status, WNOHANG);
      if (done == pid_) {
        pid_ = -1;
        return true;
      }
      if (seconds_now() > end) return false;
      ::usleep(1000);
    }
  }

 private:
  pid_t pid_;
};

Result<pid_t> start(const std::string& command, const Pipe& in, const Pipe& out,
                    const Pipe& complaints) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.read.number, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.write.number, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, complaints.write.number, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  std::string shell = "/bin/sh", flag = "-c", text = command;
  std::array<char*, 4> arguments{shell.data(), flag.data(), text.data(), nullptr};
  pid_t pid = 0;
  const int failure =
      ::posix_spawn(&pid, "/bin/sh", &actions, &attributes, arguments.data(), ::environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (failure != 0) {
    return Error{ErrorCode::kUnsupported,
                 "the program cannot be started",
                 command,
                 std::strerror(failure),
                 "",
                 ""};
  }
  return pid;
}

// Reads what is there. False at the end.
bool read_some(const Descriptor& from, std::string& to) {
  std::array<char, 4096> bytes{};
  const ssize_t count = ::read(from.number, bytes.data(), bytes.size());
  if (count > 0) to.append(bytes.data(), static_cast<std::size_t>(count));
  return count > 0 || (count < 0 && (errno == EINTR || errno == EAGAIN));
}

}  // namespace

Result<std::string> ask_program(const std::string& command, std::string_view input,
                                const ProgramOptions& options) {
  auto in = make_input();
  if (!in) return in.error();
  auto out = make_pipe();
  if (!out) return out.error();
  auto complaints = make_pipe();
  if (!complaints) return complaints.error();
  const auto pid = start(command, *in, *out, *complaints);
  if (!pid) return pid.error();
  Child child(*pid);
  in->read.close();
  out->write.close();
  complaints->write.close();
  ::fcntl(in->write.number, F_SETFL, O_NONBLOCK);
  std::string answer, complaint;
  const double end = seconds_now() + options.seconds;
  const auto too_long = [&] {
    return failed(command, fmt::format("nothing whole after {:g} seconds", options.seconds),
                  "an answer in time", complaint);
  };
  while (out->read.is_open() || complaints->read.is_open()) {
    const double left = end - seconds_now();
    if (left <= 0) return too_long();
    std::array<pollfd, 3> waits{pollfd{out->read.number, POLLIN, 0},
                                pollfd{complaints->read.number, POLLIN, 0},
                                pollfd{in->write.number, POLLOUT, 0}};
    if (::poll(waits.data(), waits.size(), static_cast<int>(left * 1000) + 1) < 0) continue;
    if (waits[0].revents != 0 && !read_some(out->read, answer)) out->read.close();
    if (waits[1].revents != 0 && !read_some(complaints->read, complaint)) complaints->read.close();
    if (answer.size() > options.most_bytes) {
      return failed(command, fmt::format("more than {} bytes", options.most_bytes),
                    "a short answer", "");
    }
    if (complaint.size() > 2000) complaint.erase(0, complaint.size() - 1000);
    if (waits[2].revents != 0) {
      const ssize_t count = ::send(in->write.number, input.data(), input.size(), MSG_NOSIGNAL);
      if (count > 0) input.remove_prefix(static_cast<std::size_t>(count));
      // It may end without having read all of its input: then its answer counts.
      if ((count < 0 && errno != EAGAIN && errno != EINTR) || input.empty()) in->write.close();
    }
  }
  int status = 0;
  if (!child.wait_for(std::max(0.0, end - seconds_now()), status)) return too_long();
  if (WIFSIGNALED(status)) {
    return failed(command, fmt::format("ended by signal {}", WTERMSIG(status)), "", complaint);
  }
  if (WEXITSTATUS(status) != 0) {
    return failed(command, fmt::format("exit status {}", WEXITSTATUS(status)), "exit status 0",
                  complaint);
  }
  return answer;
}

}  // namespace hone::feedback
