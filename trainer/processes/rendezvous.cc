#include "trainer/processes/rendezvous.h"

#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "common/base/strings.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kText[] = "text";
constexpr char kFailed[] = "failed";
constexpr char kBeats[] = "beats";
constexpr char kDone[] = "done";

std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }
std::string Text(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

}  // namespace

absl::StatusOr<std::unique_ptr<Rendezvous>> Rendezvous::Meet(const Launch& launch, const RendezvousTimes& times,
                                                             const std::string& text, OnLoss on_loss) {
  std::unique_ptr<Rendezvous> met(new Rendezvous(launch, times, std::move(on_loss)));
  try {
    met->Open(text);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        StrCat("rank ", launch.rank, " did not meet rank 0 at ", launch.address, ":", launch.port, ": ", error.what()));
  }
  return met;
}

Rendezvous::Rendezvous(const Launch& launch, const RendezvousTimes& times, OnLoss on_loss)
    : launch_(launch), times_(times), on_loss_(std::move(on_loss)), watched_((launch.rank + 1) % launch.size) {}

Rendezvous::~Rendezvous() { StopWatching(); }

void Rendezvous::Open(const std::string& text) {
  c10d::TCPStoreOptions options;
  options.port = launch_.port;
  options.isServer = launch_.rank == 0 && !launch_.served;
  options.waitWorkers = false;
  options.timeout = times_.meeting;
  store_ = c10::make_intrusive<c10d::TCPStore>(launch_.address, options);
  const std::string key = Key(kText, 0);
  if (launch_.rank == 0) store_->set(key, Bytes(text));
  text_ = Text(store_->get(key));
  last_beat_ = Clock::now();
  if (launch_.size > 1) watcher_ = std::thread([this] { Watch(); });
}

void Rendezvous::Fail(const std::string& reason) {
  StopWatching();
  try {
    store_->set(Key(kFailed, 0), Bytes(reason));
  } catch (const std::exception&) {
    return;  // the others have lost the store as well
  }
  if (launch_.rank == 0 && !launch_.served) std::this_thread::sleep_for(3 * times_.beat);
}

void Rendezvous::Finish() {
  StopWatching();
  const Clock::time_point deadline = Clock::now() + times_.silence;
  try {
    store_->set(Key(kDone, launch_.rank), Bytes("1"));
    std::vector<std::string> all;
    all.reserve(launch_.size);
    for (int rank = 0; rank < launch_.size; ++rank) all.push_back(Key(kDone, rank));
    while (launch_.rank == 0 && !store_->check(all) && Clock::now() < deadline) {
      std::this_thread::sleep_for(times_.beat / 10);
    }
  } catch (const std::exception&) {
    return;  // rank 0 has gone with the store, since all it waited for were done
  }
}

void Rendezvous::StopWatching() {
  if (!watcher_.joinable()) return;
  stop_.release();
  watcher_.join();
}

void Rendezvous::Watch() {
  do {
    std::string loss;
    try {
      store_->add(Key(kBeats, launch_.rank), 1);
      loss = LossSeen();
    } catch (const std::exception&) {
      loss = StrCat("rank 0 at ", launch_.address, ":", launch_.port, " is gone");
    }
    if (loss.empty()) continue;
    on_loss_(loss);
    return;
  } while (!stop_.try_acquire_for(times_.beat));
}

std::string Rendezvous::LossSeen() {
  if (store_->check({Key(kFailed, 0)})) return Text(store_->get(Key(kFailed, 0)));
  const int64_t beats = store_->add(Key(kBeats, watched_), 0);
  if (beats != beats_seen_ || store_->check({Key(kDone, watched_)})) {
    beats_seen_ = beats;
    last_beat_ = Clock::now();
  }
  const auto allowed = beats == 0 ? times_.meeting : times_.silence;
  if (Clock::now() - last_beat_ < allowed) return "";
  return StrCat("rank ", watched_, " gives no sign of life");
}

std::string Rendezvous::Key(const std::string& name, int rank) const {
  return StrCat(launch_.key_prefix, name, "/", rank);
}

}  // namespace retro
