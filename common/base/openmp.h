// OpenMP's worker threads spin while they wait, which starves everything else of a busy machine (measured: one
// embedding took 731 ms instead of 40). The runtime reads OMP_WAIT_POLICY when it is loaded, so a program that finds it
// unset starts itself again with it.
#pragma once

namespace retro {

// Call first in main(). Does nothing if the variable is set, to whatever value.
void EnsurePassiveOpenMp(char** argv);

}  // namespace retro
