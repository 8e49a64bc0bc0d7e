// Where processes that share nothing else meet: a store of names and values, kept by rank 0 or by the launcher, through
// which each also hears of the end of the others. NCCL waits for ever for a process that is gone.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "trainer/processes/launch.h"

namespace c10d {
class Store;
}

namespace retro {

// The times that a group allows.
struct RendezvousTimes {
  std::chrono::milliseconds meeting{300'000};  // until all have come
  std::chrono::milliseconds beat{1000};        // between two signs of life
  std::chrono::milliseconds silence{60'000};   // after which a process counts as gone
};

class Rendezvous {
 public:
  // Called once, on a thread of its own, when another process has failed or is gone; the text says which and why.
  using OnLoss = std::function<void(const std::string& reason)>;

  // Waits for rank 0. `text` is what it has to say; that of the others is left alone. UNAVAILABLE: it did not come.
  static absl::StatusOr<std::unique_ptr<Rendezvous>> Meet(const Launch& launch, const RendezvousTimes& times,
                                                          const std::string& text, OnLoss on_loss);
  // Without Finish before it: like a process that is killed.
  ~Rendezvous();

  const std::string& text_of_first() const { return text_; }
  // Tells the others why they must end, and gives them the time to hear it.
  void Fail(const std::string& reason);
  // This process is done. Rank 0 waits for the others, as it keeps the store.
  void Finish();

 private:
  Rendezvous(const Launch& launch, const RendezvousTimes& times, OnLoss on_loss);
  void Open(const std::string& text);
  void Watch();
  void StopWatching();
  std::string LossSeen();  // empty: none
  std::string Key(const std::string& name, int rank) const;

  const Launch launch_;
  const RendezvousTimes times_;
  const OnLoss on_loss_;
  const int watched_;  // the rank whose signs of life this one counts
  c10::intrusive_ptr<c10d::Store> store_;
  std::string text_;
  int64_t beats_seen_ = 0;
  std::chrono::steady_clock::time_point last_beat_;
  std::binary_semaphore stop_{0};
  std::thread watcher_;
};

}  // namespace retro
