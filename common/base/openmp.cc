#include "common/base/openmp.h"

#include <unistd.h>

#include <cstdlib>

namespace retro {

void EnsurePassiveOpenMp(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);  // on failure we go on with spinning threads: slower, not wrong
}

}  // namespace retro
