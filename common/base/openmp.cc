#include "common/base/openmp.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

namespace retro {

void EnsurePassiveOpenMp(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = '\0';
  execv(path, argv);  // on failure we go on with spinning threads: slower, not wrong
}

}  // namespace retro
