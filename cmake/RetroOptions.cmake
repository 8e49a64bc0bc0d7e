# retro_options: the flags every target of ours is compiled with. Generated code (proto/) takes none of the warnings.
add_library(retro_flags INTERFACE)
target_compile_options(retro_flags INTERFACE -march=${RETRO_MARCH} -fno-omit-frame-pointer $<$<CONFIG:Release>:-g1>)
if(RETRO_SANITIZE)
  target_compile_options(retro_flags INTERFACE -fsanitize=${RETRO_SANITIZE} -fno-sanitize-recover=undefined)
  target_link_options(retro_flags INTERFACE -fsanitize=${RETRO_SANITIZE})
endif()
if(RETRO_SANITIZE STREQUAL thread)
  # protobuf's maps have other fields where a compiler says that it is ThreadSanitizer's, and its library is not built with it.
  target_compile_options(retro_flags INTERFACE -U__SANITIZE_THREAD__ -D_GLIBCXX_TSAN=1 -DRETRO_THREAD_SANITIZER)
endif()

add_library(retro_options INTERFACE)
target_link_libraries(retro_options INTERFACE retro_flags)
target_compile_options(retro_options INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(retro_options INTERFACE -Wno-restrict)   # false alarms on std::string, GCC bug 105651
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND RETRO_SANITIZE)
  target_compile_options(retro_options INTERFACE -Wno-maybe-uninitialized)   # false alarms, as GCC's manual says of -fsanitize
endif()

# retro_library(NAME SOURCES a.cc b.cc LIBRARIES x y): a static library of ours; includes are written from the repository's root.
function(retro_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBRARIES;PRIVATE_LIBRARIES" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${arg_LIBRARIES} PRIVATE retro_options ${arg_PRIVATE_LIBRARIES})
  if(RETRO_SANITIZE)
    target_link_options(${name} PUBLIC -fsanitize=${RETRO_SANITIZE})
  endif()
endfunction()

# retro_program(NAME SOURCES main.cc LIBRARIES x y): an executable in build/<preset>/bin.
function(retro_program name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES} retro_options)
endfunction()
