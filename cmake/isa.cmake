# Each kernel family (src/kernels/<family>.inl) is compiled once for each instruction set, in a
# translation unit of its own that includes src/kernels/isa/<isa>.h first. No re-inclusion tricks:
# a debugger sees plain files.
set(HONE_ISAS scalar avx2 avx512)
# The fallback is there to be right: vectorizing its loops over 16 rows made it the longest to
# compile.
set(HONE_ISA_FLAGS_scalar $<$<NOT:$<CONFIG:Debug>>:-O1>)
set(HONE_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2 -mlzcnt -mpopcnt)
set(HONE_ISA_FLAGS_avx512 ${HONE_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
  -mavx512cd -mavx512vnni -mprefer-vector-width=512)

# GCC's temporary expression replacement moves loads in front of what uses them first, and sums of
# tiles out of registers: Q4_1, 256 tokens, one thread of Zen 3: 213 GOPS with it, 230 without
# (2026-11-25).
set(HONE_FAMILY_FLAGS_matmul_int8_avx2 $<$<CXX_COMPILER_ID:GNU>:-fno-tree-ter>)

function(hone_isa_variants)
  file(GLOB families CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/*.inl)
  foreach(family_file ${families})
    get_filename_component(HONE_FAMILY ${family_file} NAME_WE)
    foreach(HONE_ISA ${HONE_ISAS})
      set(generated ${CMAKE_BINARY_DIR}/isa/${HONE_FAMILY}_${HONE_ISA}.cpp)
      configure_file(${CMAKE_SOURCE_DIR}/cmake/isa.cpp.in ${generated} @ONLY)
      set_source_files_properties(${generated} PROPERTIES COMPILE_OPTIONS
        "${HONE_ISA_FLAGS_${HONE_ISA}};${HONE_FAMILY_FLAGS_${HONE_FAMILY}_${HONE_ISA}}")
      target_sources(hone_kernels PRIVATE ${generated})
    endforeach()
  endforeach()
endfunction()
