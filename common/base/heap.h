// What the process keeps of memory that it has freed. glibc gives every few threads a heap of their own, up to eight a
// core, and each keeps what lies below something that is still in use: a server whose threads take turns at large
// pieces of work grows for a long time.
#pragma once

namespace retro {

// Before the first thread is started.
void BoundHeaps();
// Takes milliseconds. Any thread.
void GiveFreedMemoryBack();

}  // namespace retro
