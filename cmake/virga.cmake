# How a folder of src/ becomes a target: one static library from its *.cc, one test program from its *_test.cc.

add_library(virga_flags INTERFACE)
target_compile_options(virga_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Werror=return-type -Werror=unused-result
  -Wno-gnu-zero-variadic-macro-arguments -fPIE -fstack-protector-strong -fcf-protection -fno-omit-frame-pointer)
target_compile_definitions(virga_flags INTERFACE _GLIBCXX_ASSERTIONS BOOST_ASIO_NO_DEPRECATED SPDLOG_FMT_EXTERNAL
  $<$<CONFIG:Release>:_FORTIFY_SOURCE=3> $<$<BOOL:${VIRGA_FAULTS}>:VIRGA_FAULTS=1>)
target_link_options(virga_flags INTERFACE -fuse-ld=lld-19 -pie -Wl,-z,relro,-z,now)
target_include_directories(virga_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(VIRGA_SANITIZE)
  target_compile_options(virga_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all)
  target_link_options(virga_flags INTERFACE -fsanitize=address,undefined)
endif()

# virga_library(NAME DIR [LINK targets...] [TEST targets...]): DIR is below src/ and is not searched recursively; TEST is what only the
# tests need.
function(virga_library name dir)
  cmake_parse_arguments(A "NO_PCH" "" "LINK;TEST" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${dir}/*.cc)
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

# virga_app(NAME DIR [LINK targets...]): a program built from src/apps/DIR.
function(virga_app name)
  cmake_parse_arguments(A "" "" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/apps/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  if(sources)
    add_executable(${name} ${sources})
    target_link_libraries(${name} PRIVATE virga_flags ${A_LINK})
    virga_pch(${name})
  endif()
endfunction()

# virga_static_app(NAME): a small static program without exceptions' and streams' weight; it uses libc and its own folder only.
function(virga_static_app name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/apps/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  if(sources)
    add_executable(${name} ${sources})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src)
    target_compile_options(${name} PRIVATE -Os -Wall -Wextra -Wshadow -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables
      -ffunction-sections -fdata-sections -fstack-protector-strong -fno-pie)
    target_link_options(${name} PRIVATE -fuse-ld=lld-19 -static -no-pie -Wl,--gc-sections -Wl,-s)
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  endif()
endfunction()

# One precompiled header for everything: Asio's coroutine types and Boost.JSON cost more than most of our files.
function(virga_pch target)
  if(target STREQUAL "base")
    target_precompile_headers(base PRIVATE ${CMAKE_SOURCE_DIR}/src/base/pch.h)
    target_compile_options(base PRIVATE -Xclang -fno-pch-timestamp)
  else()
    target_compile_options(${target} PRIVATE -Xclang -fno-pch-timestamp)
    target_precompile_headers(${target} REUSE_FROM base)
  endif()
endfunction()
