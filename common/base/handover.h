// For ThreadSanitizer alone.
#pragma once

namespace retro {

// Where gRPC, which is not compiled with ThreadSanitizer, orders what one thread does before what another does, these
// tell it so: all before HandOver(object) comes before all after TakeOver(object). Nothing in other builds.
#if defined(RETRO_THREAD_SANITIZER)
extern "C" void __tsan_release(void* object);
extern "C" void __tsan_acquire(void* object);
inline void HandOver(void* object) { __tsan_release(object); }
inline void TakeOver(void* object) { __tsan_acquire(object); }
#else
inline void HandOver(void* /*object*/) {}
inline void TakeOver(void* /*object*/) {}
#endif

}  // namespace retro
