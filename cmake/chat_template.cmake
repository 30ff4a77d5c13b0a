# third_party/chat_template by cargo, as a static library that hone_formats links. The folder is
# copied into the build first, so that cargo's lock file stays out of the source tree.
find_program(HONE_CARGO NAMES cargo HINTS /usr/bin REQUIRED)
set(crate_source ${CMAKE_SOURCE_DIR}/third_party/chat_template)
set(crate_build ${CMAKE_BINARY_DIR}/chat_template)
set(crate_library ${crate_build}/target/release/libhone_chat_template.a)
file(GLOB crate_files CONFIGURE_DEPENDS ${crate_source}/Cargo.toml ${crate_source}/src/*.rs)

# Before 1.68, cargo would clone the whole registry's history; the sparse protocol is in it since
# 1.60, behind a switch that the released compiler takes with RUSTC_BOOTSTRAP.
execute_process(COMMAND ${HONE_CARGO} --version OUTPUT_VARIABLE cargo_version)
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" cargo_version "${cargo_version}")
# The compiler beside cargo, not another one of the path.
get_filename_component(cargo_folder ${HONE_CARGO} DIRECTORY)
find_program(HONE_RUSTC NAMES rustc HINTS ${cargo_folder} REQUIRED)
set(cargo_command ${CMAKE_COMMAND} -E env RUSTC=${HONE_RUSTC})
if(cargo_version VERSION_LESS 1.68)
  list(APPEND cargo_command RUSTC_BOOTSTRAP=1 ${HONE_CARGO} -Z sparse-registry)
else()
  list(APPEND cargo_command ${HONE_CARGO})
endif()

add_custom_command(OUTPUT ${crate_library}
  COMMAND ${CMAKE_COMMAND} -E copy_directory ${crate_source} ${crate_build}
  COMMAND ${cargo_command} build --quiet --release --manifest-path ${crate_build}/Cargo.toml
    --target-dir ${crate_build}/target
  DEPENDS ${crate_files}
  COMMENT "Building the chat template library (cargo ${cargo_version})" VERBATIM)
add_custom_target(hone_chat_template_build DEPENDS ${crate_library})
add_library(hone_chat_template STATIC IMPORTED GLOBAL)
set_target_properties(hone_chat_template PROPERTIES IMPORTED_LOCATION ${crate_library}
  INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
add_dependencies(hone_chat_template hone_chat_template_build)
add_dependencies(hone_formats hone_chat_template_build)
target_link_libraries(hone_formats PRIVATE hone_chat_template)
