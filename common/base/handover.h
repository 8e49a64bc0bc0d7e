// For ThreadSanitizer alone; nothing in other builds.
#pragma once

namespace retro {

// Where gRPC, which is not compiled with ThreadSanitizer, orders what one thread does before what another does, these
// tell it so: all before HandOver(object) comes before all after TakeOver(object). What gRPC reads of a message inside
// of the call that sends it comes before it tells that it was sent: those reads are not looked at, from
// BeginUnseenReads to EndUnseenReads on one thread.
#if defined(RETRO_THREAD_SANITIZER)
extern "C" void __tsan_release(void* object);
extern "C" void __tsan_acquire(void* object);
extern "C" void AnnotateIgnoreReadsBegin(char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(char* file, int line);
inline void HandOver(void* object) { __tsan_release(object); }
inline void TakeOver(void* object) { __tsan_acquire(object); }
inline void BeginUnseenReads() { AnnotateIgnoreReadsBegin(nullptr, 0); }
inline void EndUnseenReads() { AnnotateIgnoreReadsEnd(nullptr, 0); }
#else
inline void HandOver(void* /*object*/) {}
inline void TakeOver(void* /*object*/) {}
inline void BeginUnseenReads() {}
inline void EndUnseenReads() {}
#endif

}  // namespace retro
