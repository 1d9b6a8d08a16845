# The CUDA engine: found or not, its flags, its architectures.
#
# Code for sm_80, sm_89, sm_90 and sm_100, and PTX of compute_80 and compute_90 for what is newer.
# The runtime is linked dynamically, never statically.

set(BESTROUTE_CUDA_ARCHITECTURES 80-real 89-real 90-real 100-real 80-virtual 90-virtual
    CACHE STRING "What the CUDA kernels are compiled for")

set(BESTROUTE_CUDA_FOUND OFF)
if(NOT BESTROUTE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "BESTROUTE_CUDA is '${BESTROUTE_CUDA}': expected AUTO, ON or OFF")
endif()
if(NOT BESTROUTE_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin)
  endif()
  # Asked before the language is enabled: an old compiler would not know the architectures,
  # and end the configuration.
  set(BESTROUTE_NVCC_VERSION 0)
  if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_says ERROR_QUIET)
    if(nvcc_says MATCHES "release ([0-9]+\\.[0-9]+)")
      set(BESTROUTE_NVCC_VERSION ${CMAKE_MATCH_1})
    endif()
  endif()
  if(BESTROUTE_NVCC_VERSION VERSION_GREATER_EQUAL 12.4)
    set(CMAKE_CUDA_ARCHITECTURES ${BESTROUTE_CUDA_ARCHITECTURES})
    if(BESTROUTE_NVCC_VERSION VERSION_LESS 12.8)
      # It is newer than the compiler; compute_90's PTX serves it.
      list(REMOVE_ITEM CMAKE_CUDA_ARCHITECTURES 100-real)
    endif()
    enable_language(CUDA)
    find_package(CUDAToolkit 12.4)
  endif()
  if(TARGET CUDA::cudart AND TARGET CUDA::cublasLt)
    set(BESTROUTE_CUDA_FOUND ON)
  elseif(BESTROUTE_CUDA STREQUAL "ON")
    message(FATAL_ERROR
      "BESTROUTE_CUDA is ON, but the CUDA toolkit (12.4 or newer, with cuBLASLt) was not found")
  endif()
endif()
set(BESTROUTE_CUDA_FOUND ${BESTROUTE_CUDA_FOUND} CACHE INTERNAL "")
message(STATUS "CUDA engine: ${BESTROUTE_CUDA_FOUND}")

set(BESTROUTE_NCCL_FOUND OFF)
if(BESTROUTE_CUDA_FOUND)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  if(NCCL_INCLUDE_DIR)
    set(BESTROUTE_NCCL_FOUND ON)
  endif()
endif()
message(STATUS "NCCL: ${BESTROUTE_NCCL_FOUND}")

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
