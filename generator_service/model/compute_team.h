// The workers of a thread that computes: as many as torch gives the thread, which stay for as long as the thread does.
#pragma once

#include <cstdint>
#include <functional>

namespace retro {

// Calls body(begin, end) on the calling thread's workers for ranges that tile 0 ... count, as even as they come, and
// returns when all are done. `body` must not throw nor share out.
void ShareOut(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body);

// The same in more ranges, which shrink towards the end and the next of which goes to whoever is done: nobody waits
// long for a worker whose core or memory is slower than the other's. Guided self-scheduling (Polychronopoulos and Kuck
// 1987).
void TakeInTurns(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body);

}  // namespace retro
