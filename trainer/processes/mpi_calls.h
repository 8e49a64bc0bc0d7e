// What retro_mpi.so does for the programs. It alone is linked to MPI and loaded where it is used, so that the programs
// run on machines without MPI.
#pragma once

#include <cstdint>

namespace retro {

enum class MpiNumber { kFloat, kDouble, kInt64 };

// MPI ends all processes by itself where one of these calls fails.
struct MpiCalls {
  void (*start)(int* rank, int* size);
  void (*sum)(void* values, int64_t count, MpiNumber number);  // in place
  void (*finish)();
  void (*abort)();  // ends all processes
};

inline constexpr char kMpiModule[] = "retro_mpi.so";  // beside the program
inline constexpr char kMpiCallsName[] = "RetroMpiCalls";

}  // namespace retro
