# retro_add_test(name COMMAND program-or-target arguments... [LABELS slow] [TIMEOUT seconds] [ENVIRONMENT variable=value...]
#   [NOT_SANITIZED reason]): one ctest entry.
# In builds with sanitizers it also fails if any process of it reported something, however that ended (tests/sanitized.sh), and
# gets the time that these builds take. What has a reason not to run there bears the label not_sanitized and is disabled.
# One that takes too long says where it hangs (tests/watched.sh).
set(RETRO_TIME_FACTOR 1)
set(RETRO_TEST_ENVIRONMENT RETRO_SOURCE_DIR=${CMAKE_SOURCE_DIR} RETRO_SITE_PACKAGES=${RETRO_SITE_PACKAGES} RETRO_BUILD=${CMAKE_BINARY_DIR}
  TEST_TMPDIR=${CMAKE_BINARY_DIR}/tests/files/ OMP_WAIT_POLICY=passive)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/tests/files)  # GoogleTest's TempDir(): of each build its own
if(RETRO_SANITIZE)
  set(RETRO_TIME_FACTOR 6)
  set(RETRO_TEST_ENVIRONMENT ${RETRO_TEST_ENVIRONMENT} RETRO_WAIT_S=300 RETRO_TIME_FACTOR=${RETRO_TIME_FACTOR})
endif()

function(retro_add_test name)
  cmake_parse_arguments(arg "" "TIMEOUT;NOT_SANITIZED" "COMMAND;LABELS;ENVIRONMENT" ${ARGN})
  list(POP_FRONT arg_COMMAND program)
  set(disabled FALSE)
  if(TARGET ${program})
    set(program $<TARGET_FILE:${program}>)
  endif()
  if(RETRO_SANITIZE)
    set(program bash ${CMAKE_SOURCE_DIR}/tests/sanitized.sh ${program})
    if(arg_NOT_SANITIZED)
      message(STATUS "Not run with sanitizers: ${name}, because ${arg_NOT_SANITIZED}")
      list(APPEND arg_LABELS not_sanitized)
      set(disabled TRUE)
    endif()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 600)
  endif()
  math(EXPR timeout "${arg_TIMEOUT} * ${RETRO_TIME_FACTOR}")
  math(EXPR patience "${timeout} * 9 / 10")
  add_test(NAME ${name} COMMAND bash ${CMAKE_SOURCE_DIR}/tests/watched.sh ${patience} ${program} ${arg_COMMAND})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${timeout}
    ENVIRONMENT "${RETRO_TEST_ENVIRONMENT};${arg_ENVIRONMENT}" DISABLED ${disabled})
endfunction()
