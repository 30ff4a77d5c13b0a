// libcurl does HTTP; resuming follows RFC 9110, sections 13.1.5 (If-Range) and 14 (ranges).
// SPDX-License-Identifier: Apache-2.0
#include "cli/download.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <thread>

#include "base/descriptor.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "cli/curl_library.h"
#include "cli/program.h"

namespace hone::cli {
namespace {

namespace fs = std::filesystem;

// One try, as the callbacks of libcurl see it.
class Transfer {
 public:
  Transfer(const CurlLibrary& curl, std::string url, std::string partial, Progress* progress)
      : curl_(curl), url_(std::move(url)), partial_(std::move(partial)), progress_(progress) {}

  // True: complete. False: worth another try; error() says why. Else: an error for good.
  Result<bool> run();
  const Error& error() const { return error_; }
  std::int64_t resumed_from() const { return resumed_from_; }

 private:
  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* self);
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self);
  static int on_progress(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return interrupted() ? 1 : 0;
  }
  void header(std::string_view line);
  bool begin_body();
  bool body(std::span<const char> bytes);
  void find_start();
  void remember();
  Result<bool> judge(CURLcode code);
  void fail(ErrorCode code, std::string what, std::string found, std::string advice);

  const CurlLibrary& curl_;
  const std::string url_;
  const std::string partial_;
  Progress* progress_;
  Descriptor file_;
  std::int64_t start_ = 0;  // bytes that are there
  std::int64_t done_ = 0;
  std::int64_t resumed_from_ = 0;
  std::string validator_;  // of the bytes that are there
  Error error_;
  bool failed_ = false;  // for good: error_ is set
  // Of the present response.
  long status_ = 0;
  std::string etag_;
  std::string modified_;
  std::string range_;
  std::int64_t length_ = -1;
  bool begun_ = false;
};

void Transfer::fail(ErrorCode code, std::string what, std::string found, std::string advice) {
  if (failed_) return;
  failed_ = true;
  error_ = Error{code, std::move(what), url_, std::move(found), "", std::move(advice)};
}

// What an earlier try left, if it was of this URL and can be recognized by the server.
void Transfer::find_start() {
  struct stat status {};
  const auto text = read_file(partial_ + ".json");
  if (!text || ::stat(partial_.c_str(), &status) != 0 || status.st_size == 0) return;
  const auto note = nlohmann::json::parse(*text, nullptr, false);
  if (!note.is_object()) return;
  const auto value = [&note](const char* key) {
    const auto found = note.find(key);
    return found != note.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (value("url") != url_ || value("validator").empty()) return;
  validator_ = value("validator");
  start_ = status.st_size;
}

void Transfer::remember() {
  // Only a strong tag says that the bytes are the same.
  const std::string validator = !etag_.empty() && !etag_.starts_with("W/") ? etag_ : modified_;
  const nlohmann::json note = {{"url", url_}, {"validator", validator}};
  (void)write_file_atomically(partial_ + ".json",
                              note.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::size_t Transfer::on_header(char* data, std::size_t size, std::size_t count, void* self) {
  static_cast<Transfer*>(self)->header({data, size * count});
  return size * count;
}

std::size_t Transfer::on_body(char* data, std::size_t size, std::size_t count, void* self) {
  const std::size_t bytes = size * count;
  return static_cast<Transfer*>(self)->body({data, bytes}) ? bytes : 0;
}

void Transfer::header(std::string_view line) {
  while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
  if (line.starts_with("HTTP/")) {  // a new response: a redirect's headers do not count
    status_ = 0;
    etag_.clear();
    modified_.clear();
    range_.clear();
    length_ = -1;
    const std::size_t space = line.find(' ');
    if (space != line.npos) {
      std::from_chars(line.data() + space + 1, line.data() + line.size(), status_);
    }
    return;
  }
  const std::size_t colon = line.find(':');
  if (colon == line.npos) return;
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  std::string_view value = line.substr(colon + 1);
  while (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "etag") etag_ = value;
  if (name == "last-modified") modified_ = value;
  if (name == "content-range") range_ = value;
  if (name == "content-length") {
    std::from_chars(value.data(), value.data() + value.size(), length_);
  }
}

bool Transfer::begin_body() {
  begun_ = true;
  const bool continues =
      status_ == 206 && start_ > 0 && range_.starts_with(fmt::format("bytes {}-", start_));
  if (status_ == 206 && !continues) {
    fail(ErrorCode::kIo, "the server sent another part than was asked for", range_,
         "remove the .partial file and run it again");
    return false;
  }
  int flags = O_WRONLY | O_CREAT | O_CLOEXEC;
  flags |= continues ? O_APPEND : O_TRUNC;
  file_.number = ::open(partial_.c_str(), flags, 0666);
  if (file_.number < 0) {
    fail(ErrorCode::kIo, "cannot create the file", std::strerror(errno), "");
    error_.where = partial_;
    return false;
  }
  done_ = resumed_from_ = continues ? start_ : 0;
  if (!continues) remember();
  if (progress_ != nullptr && length_ >= 0) progress_->set_total(done_ + length_);
  return true;
}

bool Transfer::body(std::span<const char> bytes) {
  if (status_ != 200 && status_ != 206) return true;  // an error page: not for the file
  if (!begun_ && !begin_body()) return false;
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_.number, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      fail(ErrorCode::kIo, "cannot write the file", std::strerror(errno),
           errno == ENOSPC ? "make room on the disk and run it again: it goes on from here" : "");
      error_.where = partial_;
      return false;
    }
    done_ += written;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  if (progress_ != nullptr) progress_->update(done_);
  return true;
}

Result<bool> Transfer::run() {
  find_start();
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_.easy_init(), curl_.easy_cleanup);
  if (curl == nullptr) return Error{ErrorCode::kInternal, "libcurl did not start", "", "", "", ""};
  const auto set = [this, &curl](CURLoption option, auto value) {
    curl_.easy_setopt(curl.get(), option, value);
  };
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, curl_.slist_free_all);
  std::string range;
  if (start_ > 0) {
    range = fmt::format("{}-", start_);
    set(CURLOPT_RANGE, range.c_str());
    headers.reset(curl_.slist_append(nullptr, ("If-Range: " + validator_).c_str()));
    set(CURLOPT_HTTPHEADER, headers.get());
  }
  set(CURLOPT_URL, url_.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 10L);
  set(CURLOPT_USERAGENT, "hone/" HONE_VERSION);
  set(CURLOPT_CONNECTTIMEOUT, 30L);
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);  // bytes a second, for so many seconds: nothing comes
  set(CURLOPT_LOW_SPEED_TIME, 60L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(CURLOPT_HEADERDATA, this);
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  set(CURLOPT_WRITEDATA, this);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &Transfer::on_progress);
  return judge(curl_.easy_perform(curl.get()));
}

Result<bool> Transfer::judge(CURLcode code) {
  if (failed_) return error_;
  if (code == CURLE_OK && (status_ == 200 || status_ == 206)) {
    if (!begun_ && !begin_body()) return error_;  // an empty file
    if (::fsync(file_.number) == 0) return true;
    fail(ErrorCode::kIo, "cannot flush the file", std::strerror(errno), "");
    return error_;
  }
  const std::string status = fmt::format("HTTP status {}", status_);
  if (code == CURLE_OK) {
    if (status_ == 404 || status_ == 410) {
      fail(ErrorCode::kNotFound, "the server has no such file", status, "check the address");
    } else if (status_ == 401 || status_ == 403) {
      fail(ErrorCode::kIo, "the server does not let us have the file", status,
           "it may be private, or want its terms accepted: download it in a browser");
    } else if (status_ == 416) {  // what is there is no part of what the server has now
      std::error_code ignored;
      fs::remove(partial_, ignored);
    } else if (status_ < 500 && status_ != 408 && status_ != 429) {
      fail(ErrorCode::kIo, "the server refused", status, "check the address");
    }
    if (failed_) return error_;
    error_ = Error{ErrorCode::kIo,
                   "the server could not answer",
                   url_,
                   status,
                   "",
                   "run it again later: it goes on where it ended"};
    return false;
  }
  const std::string words = curl_.easy_strerror(code);
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
      fail(ErrorCode::kInvalidArgument, "this address makes no sense", words,
           "an address begins with https:// or http://");
      return error_;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CONNECT_ERROR:
      fail(ErrorCode::kIo, "there is no secure connection to the server", words,
           "check the clock and the certificates (package ca-certificates) of this machine");
      return error_;
    case CURLE_TOO_MANY_REDIRECTS:
      fail(ErrorCode::kIo, "the server sends us in circles", words, "check the address");
      return error_;
    default: break;
  }
  error_ = Error{ErrorCode::kIo,
                 "the download broke off",
                 url_,
                 words,
                 "",
                 "check the network and run it again: it goes on where it ended"};
  return false;
}

Result<std::string> hash_of_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  if (!file) return file.error();
  Sha256 hash;
  constexpr std::size_t kPiece = 8 << 20;
  const auto bytes = file->bytes();
  for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
    hash.add(bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
    file->release(at, kPiece);
  }
  return hash.finish();
}

void remove_partial(const std::string& partial) {
  std::error_code ignored;
  fs::remove(partial, ignored);
  fs::remove(partial + ".json", ignored);
}

}  // namespace

Result<Downloaded> download(const std::string& url, const std::string& path,
                            const DownloadOptions& options) {
  if (!url.starts_with("https://") && !url.starts_with("http://")) {
    return Error{ErrorCode::kInvalidArgument,
                 "this is no address that hone can download from",
                 url,
                 "",
                 "https://… or http://…",
                 ""};
  }
  const auto curl = load_curl();
  if (!curl) return curl.error();
  catch_interrupts();
  const std::string partial = path + ".partial";
  std::unique_ptr<Progress> progress;
  if (!options.quiet) {
    progress = std::make_unique<Progress>(fs::path(path).filename().string(), 0);
  }
  Downloaded result;
  bool complete = false;
  bool first = true;
  Error last;
  auto pause = options.first_pause;
  for (int left = options.tries; left > 0 && !complete && !interrupted(); --left) {
    if (!first) {
      std::this_thread::sleep_for(pause);
      pause *= 2;
    }
    Transfer transfer(*curl, url, partial, progress.get());
    const auto done = transfer.run();
    if (!done) return done.error();
    if (first) result.resumed_from = transfer.resumed_from();
    first = false;
    complete = *done;
    if (!complete) last = transfer.error();
  }
  progress.reset();
  if (!complete) return last;
  auto hash = hash_of_file(partial);
  if (!hash) return hash.error();
  if (!options.sha256.empty() && *hash != options.sha256) {
    remove_partial(partial);
    return Error{ErrorCode::kCorrupt,
                 "the file has another checksum than it should",
                 url,
                 "SHA-256 " + *hash,
                 options.sha256,
                 "nothing was kept; check the address"};
  }
  std::error_code code;
  result.bytes = static_cast<std::int64_t>(fs::file_size(partial, code));
  result.sha256 = *std::move(hash);
  fs::rename(partial, path, code);
  if (code) {
    return Error{ErrorCode::kIo, "cannot put the file in its place", path, code.message(), "", ""};
  }
  remove_partial(partial);
  return result;
}

}  // namespace hone::cli
