#include "generator_service/serve/retriever_probe.h"

#include <optional>
#include <utility>

#include "common/rpc/log.h"

namespace retro {

RetrieverProbe::RetrieverProbe(RetrieverClient& client, StoreView& store, std::chrono::milliseconds every_ms,
                               std::function<void(bool reachable)> on_look)
    : client_(client), store_(store), every_ms_(every_ms), on_look_(std::move(on_look)), thread_([this] { Loop(); }) {}

RetrieverProbe::~RetrieverProbe() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    if (call_ != nullptr) call_->TryCancel();
    changed_.NotifyAll();
  }
  thread_.join();
}

void RetrieverProbe::Loop() {
  while (Look()) {
    const auto next = std::chrono::steady_clock::now() + every_ms_;
    MutexLock lock(mutex_);
    while (!stopping_ && std::chrono::steady_clock::now() < next) changed_.WaitUntil(mutex_, next);
  }
}

bool RetrieverProbe::Look() {
  grpc::ClientContext context;
  {
    MutexLock lock(mutex_);
    if (stopping_) return false;
    call_ = &context;
  }
  std::optional<retriever::v1::GetInfoResponse> info = client_.FetchStore(context, every_ms_);
  {
    MutexLock lock(mutex_);
    call_ = nullptr;
    if (stopping_) return false;
  }
  store_.Update(std::move(info));
  on_look_(store_.reachable());
  LogNews();
  return true;
}

// Each warning once, until it has gone away in between.
void RetrieverProbe::LogNews() {
  std::set<std::string> now;
  for (const std::string& warning : store_.Warnings()) {
    if (!told_.contains(warning)) LogEvent(spdlog::level::warn, "warning", {{"message", warning}});
    now.insert(warning);
  }
  told_ = std::move(now);
}

}  // namespace retro
