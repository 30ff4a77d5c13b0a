// libhone_mpi.so: the collectives of tune/mpi_plugin.h by MPI.
// SPDX-License-Identifier: Apache-2.0
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include "tune/mpi_plugin.h"

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

// A rank that waits spins shortly, for scalars arrive within microseconds of each other; then it
// sleeps, because somebody on this machine may need the core.
constexpr std::chrono::microseconds kSpin{50};
constexpr std::chrono::microseconds kSleep{100};

int explain(int code, char* text, int text_bytes) {
  if (code == MPI_SUCCESS) return HONE_MPI_OK;
  char message[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, message, &length);
  std::snprintf(text, static_cast<std::size_t>(text_bytes), "%s", message);
  return HONE_MPI_FAILED;
}

int finish(MPI_Request request, HoneMpiPoll poll, void* context, char* text, int text_bytes) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    int done = 0;
    const int code = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return explain(code, text, text_bytes);
    if (done != 0) return HONE_MPI_OK;
    if (std::chrono::steady_clock::now() - start < kSpin) continue;
    if (poll(context) != 0) return HONE_MPI_STOPPED;  // the request stays open: hone ends now
    std::this_thread::sleep_for(kSleep);
  }
}

}  // namespace

extern "C" {

int hone_mpi_interface(void) { return HONE_MPI_INTERFACE; }

int hone_mpi_open(int* rank, int* size, char* text, int text_bytes) {
  int provided = 0;
  int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  if (code == MPI_SUCCESS) code = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (code == MPI_SUCCESS) code = MPI_Comm_rank(MPI_COMM_WORLD, rank);
  if (code == MPI_SUCCESS) code = MPI_Comm_size(MPI_COMM_WORLD, size);
  return explain(code, text, text_bytes);
}

int hone_mpi_gather(const void* mine, const int* counts, void* all, HoneMpiPoll poll, void* context,
                    char* text, int text_bytes) {
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> starts(static_cast<std::size_t>(size), 0);
  for (std::size_t i = 1; i < starts.size(); ++i) starts[i] = starts[i - 1] + counts[i - 1];
  MPI_Request request = MPI_REQUEST_NULL;
  const int code = MPI_Iallgatherv(mine, counts[rank], MPI_BYTE, all, counts, starts.data(),
                                   MPI_BYTE, MPI_COMM_WORLD, &request);
  if (code != MPI_SUCCESS) return explain(code, text, text_bytes);
  return finish(request, poll, context, text, text_bytes);
}

int hone_mpi_broadcast(void* bytes, int count, int root, HoneMpiPoll poll, void* context,
                       char* text, int text_bytes) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int code = MPI_Ibcast(bytes, count, MPI_BYTE, root, MPI_COMM_WORLD, &request);
  if (code != MPI_SUCCESS) return explain(code, text, text_bytes);
  return finish(request, poll, context, text, text_bytes);
}

void hone_mpi_close(void) { MPI_Finalize(); }

}  // extern "C"
