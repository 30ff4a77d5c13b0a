// Finds libcurl's functions at run time.
// SPDX-License-Identifier: Apache-2.0
#include "cli/curl_library.h"

#include <dlfcn.h>

#include <string>

namespace hone::cli {
namespace {

// One interface, built with one TLS library or another.
constexpr const char* kNames[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

}  // namespace

Result<CurlLibrary> load_curl() {
  void* library = nullptr;
  std::string found;
  for (const char* name : kNames) {
    if (library != nullptr) break;
    library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    const char* error = library == nullptr ? ::dlerror() : nullptr;
    if (error != nullptr && found.empty()) found = error;
  }
  CurlLibrary curl;
  const bool complete = library != nullptr && find(library, "curl_easy_init", curl.easy_init) &&
                        find(library, "curl_easy_cleanup", curl.easy_cleanup) &&
                        find(library, "curl_easy_setopt", curl.easy_setopt) &&
                        find(library, "curl_easy_perform", curl.easy_perform) &&
                        find(library, "curl_easy_strerror", curl.easy_strerror) &&
                        find(library, "curl_slist_append", curl.slist_append) &&
                        find(library, "curl_slist_free_all", curl.slist_free_all);
  if (complete) return curl;
  if (library != nullptr) found = "a libcurl without the functions that hone calls";
  return Error{ErrorCode::kNotFound,
               "downloads need libcurl, and it cannot be loaded",
               "",
               found,
               "libcurl.so.4",
               "install the package libcurl4"};
}

}  // namespace hone::cli
