#include "common/base/heap.h"

#include <malloc.h>

namespace retro {
namespace {

constexpr int kHeapsMax = 4;

}  // namespace

void BoundHeaps() { mallopt(M_ARENA_MAX, kHeapsMax); }

void GiveFreedMemoryBack() { malloc_trim(0); }

}  // namespace retro
