// Looks at the retriever every now and then, so that health and warnings are true without a generation's failing first.
#pragma once

#include <grpcpp/client_context.h>

#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <thread>

#include "common/base/sync.h"
#include "generator_service/serve/retriever_client.h"

namespace retro {

class RetrieverProbe {
 public:
  // What is seen is noted in `store`; `on_look` is called by the probe's thread after each look. References must
  // outlive this.
  RetrieverProbe(RetrieverClient& client, StoreView& store, std::chrono::milliseconds every_ms,
                 std::function<void(bool reachable)> on_look);
  // A look that is under way is cancelled, and nothing comes of it.
  ~RetrieverProbe();

 private:
  void Loop();
  // False: stopped.
  bool Look();
  void LogNews();

  RetrieverClient& client_;
  StoreView& store_;
  const std::chrono::milliseconds every_ms_;
  const std::function<void(bool reachable)> on_look_;
  std::set<std::string> told_;  // the thread's: warnings that hold and are in the log
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of the look under way
  std::thread thread_;
};

}  // namespace retro
