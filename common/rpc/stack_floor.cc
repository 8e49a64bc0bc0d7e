// Linked into programs that serve metrics. civetweb (under the prometheus-cpp exposer) asks for 100 KiB thread stacks,
// which serving a scrape overflows; and glibc carves the static TLS of every loaded library out of that, so with
// libtorch_cuda in the process its pthread_create would fail. Needs
// -Wl,--export-dynamic-symbol=pthread_attr_setstacksize.
#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cstddef>

namespace {
constexpr size_t kStackBytesMin = 1U << 20;
}

extern "C" __attribute__((visibility("default"))) int pthread_attr_setstacksize(pthread_attr_t* attributes,
                                                                                size_t bytes) noexcept {
  static const auto real =
      reinterpret_cast<int (*)(pthread_attr_t*, size_t)>(dlsym(RTLD_NEXT, "pthread_attr_setstacksize"));
  return real(attributes, std::max(bytes, kStackBytesMin));
}
