#include "retriever_service/serve/open_streams.h"

#include <utility>

namespace retro {

void OpenStreams::Add(const std::shared_ptr<OpenStream>& stream) {
  bool draining = false;
  {
    const MutexLock lock(mutex_);
    std::erase_if(streams_, [](const auto& one) { return one.expired(); });
    streams_.push_back(stream);
    draining = draining_;
  }
  if (draining) stream->Drain();
}

void OpenStreams::Drain() {
  std::vector<std::weak_ptr<OpenStream>> streams;
  {
    const MutexLock lock(mutex_);
    draining_ = true;
    streams = std::exchange(streams_, {});
  }
  for (const auto& one : streams) {
    if (const auto stream = one.lock()) stream->Drain();
  }
}

}  // namespace retro
