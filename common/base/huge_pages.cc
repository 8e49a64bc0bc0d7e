#include "common/base/huge_pages.h"

#include <sys/mman.h>

#include <cstdlib>

namespace retro {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLine = 64;

}  // namespace

void* AllocateInHugePages(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, bytes < kHugePage ? kLine : kHugePage, bytes) != 0) return nullptr;
  // Advice: what the system does not know or has not got stays as it is.
  if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return memory;
}

}  // namespace retro
