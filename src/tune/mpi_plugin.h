// The C interface between hone and libhone_mpi.so, which alone links MPI. Collectives only, each
// polled, so that whoever waits can stop waiting.
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Grows with every change of what is below.
#define HONE_MPI_INTERFACE 1

#ifdef __cplusplus
extern "C" {
#endif

// Asked while waiting; other than zero: give up (HONE_MPI_STOPPED).
typedef int (*HoneMpiPoll)(void* context);

enum { HONE_MPI_OK = 0, HONE_MPI_FAILED = 1, HONE_MPI_STOPPED = 2 };

// Returns HONE_MPI_INTERFACE of the plugin's build.
int hone_mpi_interface(void);
// All others: HONE_MPI_…; where failed, `text` (of `text_bytes`) holds MPI's message.
int hone_mpi_open(int* rank, int* size, char* text, int text_bytes);
// counts (of bytes) and all: one part a rank, in rank order, without gaps.
int hone_mpi_gather(const void* mine, const int* counts, void* all, HoneMpiPoll poll, void* context,
                    char* text, int text_bytes);
int hone_mpi_broadcast(void* bytes, int count, int root, HoneMpiPoll poll, void* context,
                       char* text, int text_bytes);
// Not after a failure: MPI would wait for the dead.
void hone_mpi_close(void);

#ifdef __cplusplus
}
#endif
