// A loop whose turns are shared out over threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace retro {

// Calls body(i) for 0 ... count-1, each once, in no order, on up to `threads` threads; returns when all are done.
template <typename Body>
void ParallelFor(size_t count, int threads, const Body& body) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(i);
  };
  std::vector<std::jthread> others;
  for (int t = 1; t < threads && static_cast<size_t>(t) < count; ++t) others.emplace_back(work);
  work();
}

}  // namespace retro
