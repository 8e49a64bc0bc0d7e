// The workers of a thread that computes: as many as torch gives the thread, which stay for as long as the thread does.
#pragma once

#include <cstdint>
#include <functional>

namespace retro {

// Calls body(begin, end) on the calling thread's workers for ranges that tile 0 ... count, as even as they come, and
// returns when all are done. `body` must not throw nor share out.
void ShareOut(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body);

// The same in ranges of at most `turn`, the next of which goes to whoever is done: for workers that share their cores
// with other threads.
void TakeInTurns(int64_t count, int64_t turn, const std::function<void(int64_t begin, int64_t end)>& body);

}  // namespace retro
