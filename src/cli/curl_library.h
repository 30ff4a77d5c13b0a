// libcurl, loaded by the first download: it and the twenty libraries that it brings are 6 MB of
// memory that running a model has no use for, and some milliseconds at the start.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define CURL_DISABLE_TYPECHECK  // its macros want functions, not pointers to them
#include <curl/curl.h>

#include "base/status.h"

namespace hone::cli {

struct CurlLibrary {
  decltype(&::curl_easy_init) easy_init = nullptr;
  decltype(&::curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&::curl_easy_setopt) easy_setopt = nullptr;
  decltype(&::curl_easy_perform) easy_perform = nullptr;
  decltype(&::curl_easy_strerror) easy_strerror = nullptr;
  decltype(&::curl_slist_append) slist_append = nullptr;
  decltype(&::curl_slist_free_all) slist_free_all = nullptr;
};

// Stays loaded until the program ends.
Result<CurlLibrary> load_curl();

}  // namespace hone::cli
