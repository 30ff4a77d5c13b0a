# libhone_mpi.so, where there is an MPI: the one part that links it. hone loads it when mpirun
# started the process (src/tune/workers.h), so that nobody else needs MPI.
find_package(MPI QUIET COMPONENTS C)
if(MPI_C_FOUND)
  add_library(hone_mpi MODULE src/tune/mpi_plugin.cpp)
  target_link_libraries(hone_mpi PRIVATE hone_flags MPI::MPI_C)
  set_target_properties(hone_mpi PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}
    CXX_VISIBILITY_PRESET default)
endif()
