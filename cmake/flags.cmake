# Flags travel with targets: every library, program and test of ours is made by these functions.

# Asserts stay in: they state our own mistakes, and cost nothing next to an encoder pass.
set(CMAKE_C_FLAGS_RELEASE "-O3")
set(CMAKE_CXX_FLAGS_RELEASE "-O3")

add_library(bestroute_flags INTERFACE)
target_compile_definitions(bestroute_flags INTERFACE _GNU_SOURCE)
target_include_directories(bestroute_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
set(host_warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wvla -Wundef
    -fno-math-errno -fno-trapping-math -ffp-contract=off)
target_compile_options(bestroute_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:${host_warnings}>
  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes>
  $<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<BOOL:${BESTROUTE_WERROR}>>:-Werror>
  # nvcc's own output does not survive -Wpedantic, nor the toolkit's headers -Wconversion.
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow --expt-relaxed-constexpr -lineinfo>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${BESTROUTE_WERROR}>>:-Werror=all-warnings>)

if(BESTROUTE_SANITIZE STREQUAL "address")
  set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(BESTROUTE_SANITIZE STREQUAL "thread")
  set(sanitize -fsanitize=thread -fno-omit-frame-pointer)
elseif(NOT BESTROUTE_SANITIZE STREQUAL "none")
  message(FATAL_ERROR "BESTROUTE_SANITIZE is '${BESTROUTE_SANITIZE}': expected none, address or thread")
endif()
if(sanitize)
  target_compile_options(bestroute_flags INTERFACE ${sanitize} -O1 -g)
  target_link_options(bestroute_flags INTERFACE ${sanitize})
endif()
if(BESTROUTE_FUZZ)
  target_compile_options(bestroute_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(bestroute_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

function(bestroute_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC bestroute_flags)
endfunction()

# Programs lie beside one another, where scripts and programs look for them.
function(bestroute_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE bestroute_flags)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()
