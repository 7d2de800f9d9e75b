# How a folder of src/ becomes a target: one static library from its *.cc, one test program from its *_test.cc.

add_library(virga_flags INTERFACE)
target_compile_options(virga_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Werror=return-type -Werror=unused-result
  -Wno-gnu-zero-variadic-macro-arguments -fPIE -fstack-protector-strong -fcf-protection -fno-omit-frame-pointer
  $<$<CONFIG:Release>:-ffunction-sections>)
target_compile_definitions(virga_flags INTERFACE _GLIBCXX_ASSERTIONS BOOST_ASIO_NO_DEPRECATED SPDLOG_FMT_EXTERNAL
  $<$<CONFIG:Release>:_FORTIFY_SOURCE=3> $<$<BOOL:${VIRGA_FAULTS}>:VIRGA_FAULTS=1>)
target_link_options(virga_flags INTERFACE -fuse-ld=lld-19 -pie -Wl,-z,relro,-z,now
  $<$<CONFIG:Release>:-Wl,--gc-sections,--icf=safe,-z,pack-relative-relocs>)
target_include_directories(virga_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(VIRGA_SANITIZE)
  # vptr asks the kernel for a pipe at each look, and speaks of invalid objects where a test has used up all descriptors.
  target_compile_options(virga_flags INTERFACE -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all)
  target_link_options(virga_flags INTERFACE -fsanitize=address,undefined)
endif()

if(VIRGA_FUZZ)
  target_compile_options(virga_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  target_link_options(virga_flags INTERFACE -fsanitize=address,undefined)
endif()

# virga_library(NAME DIR [SUBFOLDERS] [LINK targets...] [TEST targets...]): DIR is below src/ and is searched recursively only with
# SUBFOLDERS; TEST is what only the tests need.
function(virga_library name dir)
  cmake_parse_arguments(A "NO_PCH;SUBFOLDERS" "" "LINK;TEST" ${ARGN})
  set(search GLOB)
  if(A_SUBFOLDERS)
    set(search GLOB_RECURSE)
  endif()
  file(${search} sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${dir}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC virga_flags ${A_LINK})
    if(NOT A_NO_PCH)
      virga_pch(${name})
    endif()
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE virga_flags ${A_LINK})
  endif()
  if(tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE ${name} ${A_TEST} GTest::gmock_main)
    virga_pch(${name}_test)
    add_test(NAME ${name} COMMAND ${name}_test)
  endif()
endfunction()

# virga_app(NAME [LINK targets...]): a program built from src/apps/NAME and the folders below it. Where it has tests, everything but main.cc
# is a library that both use.
function(virga_app name)
  cmake_parse_arguments(A "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/apps/${name}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  if(NOT sources)
    return()
  endif()
  if(tests)
    list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
    add_library(${name}_parts STATIC ${sources})
    target_link_libraries(${name}_parts PUBLIC virga_flags ${A_LINK})
    virga_pch(${name}_parts)
    set(sources ${CMAKE_SOURCE_DIR}/src/apps/${name}/main.cc)
    set(A_LINK ${name}_parts)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE ${name}_parts GTest::gmock_main)
    virga_pch(${name}_test)
    add_test(NAME ${name} COMMAND ${name}_test)
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE virga_flags ${A_LINK})
  virga_pch(${name})
endfunction()

# What small static programs are made with: without exceptions' and streams' weight.
set(virga_static_options -Os -Wall -Wextra -Wshadow -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables
  -ffunction-sections -fdata-sections -fstack-protector-strong -fno-pie)

# virga_static_app(NAME [LINK targets...]): a small static program; it uses libc, its own folder and static libraries like below.
function(virga_static_app name)
  cmake_parse_arguments(A "" "" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/apps/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  if(sources)
    add_executable(${name} ${sources})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src)
    target_compile_options(${name} PRIVATE ${virga_static_options})
    target_link_libraries(${name} PRIVATE ${A_LINK})
    target_link_options(${name} PRIVATE -fuse-ld=lld-19 -static -no-pie -Wl,--gc-sections -Wl,-s)
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  endif()
endfunction()

# virga_static_library(NAME DIR): what such programs share; tests link it too, so it is position independent.
function(virga_static_library name dir)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${dir}/*.cc)
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_compile_options(${name} PRIVATE ${virga_static_options} -fPIE
    $<$<BOOL:${VIRGA_FUZZ}>:-fsanitize=fuzzer-no-link,address,undefined>)
endfunction()

# One precompiled header for everything: Asio's coroutine types and Boost.JSON cost more than most of our files.
function(virga_pch target)
  if(target STREQUAL "base")
    target_precompile_headers(base PRIVATE ${CMAKE_SOURCE_DIR}/src/base/pch.h)
    target_compile_options(base PRIVATE -Xclang -fno-pch-timestamp)
    virga_pch_sum()
  else()
    target_compile_options(${target} PRIVATE -Xclang -fno-pch-timestamp)
    target_precompile_headers(${target} REUSE_FROM base)
  endif()
endfunction()

# What ccache takes for the content of the precompiled header, whose bytes hold absolute paths: our list and the versions it draws in.
function(virga_pch_sum)
  set(list ${CMAKE_SOURCE_DIR}/src/base/pch.h)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${list})
  set(all "${CMAKE_CXX_COMPILER_VERSION}")
  foreach(file ${list} /usr/include/boost/version.hpp /usr/include/fmt/core.h /usr/include/tl/expected.hpp /var/lib/dpkg/info/libboost1.81-dev:amd64.md5sums)
    if(EXISTS ${file})
      file(SHA256 ${file} sum)
      string(APPEND all " ${sum}")
    endif()
  endforeach()
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/base.dir/cmake_pch.hxx.pch.sum "${all}\n")
endfunction()
