// Memory for what is read from one end to the other again and again, as weights are: in pages of 2 MiB, which spare the
// processor a look-up every 4 KiB and let it read ahead across them.
#pragma once

#include <cstddef>

namespace retro {

// `bytes` bytes for std::free, aligned to 64; null if there are none. Only whole pages become huge, so that nothing is
// taken beyond what is asked for, and only where the system gives them.
void* AllocateInHugePages(size_t bytes);

}  // namespace retro
