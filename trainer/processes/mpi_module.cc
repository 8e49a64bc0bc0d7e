// retro_mpi.so: see mpi_calls.h.
#include <mpi.h>

#include <algorithm>
#include <cstddef>

#include "trainer/processes/mpi_calls.h"

namespace retro {
namespace {

constexpr int64_t kPieceMax = int64_t{1} << 26;  // MPI counts in int

void Start(int* rank, int* size) {
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, rank);
  MPI_Comm_size(MPI_COMM_WORLD, size);
}

void Sum(void* values, int64_t count, MpiNumber number) {
  const MPI_Datatype type = number == MpiNumber::kFloat    ? MPI_FLOAT
                            : number == MpiNumber::kDouble ? MPI_DOUBLE
                                                           : MPI_INT64_T;
  const int64_t bytes = number == MpiNumber::kFloat ? sizeof(float) : sizeof(double);
  for (int64_t begin = 0; begin < count; begin += kPieceMax) {
    MPI_Allreduce(MPI_IN_PLACE, static_cast<std::byte*>(values) + begin * bytes,
                  static_cast<int>(std::min(kPieceMax, count - begin)), type, MPI_SUM, MPI_COMM_WORLD);
  }
}

void Finish() { MPI_Finalize(); }

void Abort() { MPI_Abort(MPI_COMM_WORLD, 1); }

}  // namespace
}  // namespace retro

extern "C" const retro::MpiCalls RetroMpiCalls;
const retro::MpiCalls RetroMpiCalls = {retro::Start, retro::Sum, retro::Finish, retro::Abort};
