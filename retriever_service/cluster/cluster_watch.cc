#include "retriever_service/cluster/cluster_watch.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr std::chrono::milliseconds kLookEvery{100};

// What may not change while processes run: resharding moves data.
bool SameShape(const ClusterConfig& a, const ClusterConfig& b) {
  if (a.cluster != b.cluster || a.store_id != b.store_id || a.shards.size() != b.shards.size()) return false;
  for (size_t i = 0; i < a.shards.size(); ++i) {
    if (a.shards[i].first_slot != b.shards[i].first_slot) return false;
  }
  return true;
}

absl::Status Mismatch(const std::string& path, std::string_view what) {
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kClusterMismatch,
               StrCat("the cluster file ", path, " ", what));
}

}  // namespace

ClusterWatch::ClusterWatch(std::string path, ClusterConfig config)
    : path_(std::move(path)), config_(std::make_shared<const ClusterConfig>(std::move(config))) {}

absl::StatusOr<std::unique_ptr<ClusterWatch>> ClusterWatch::Start(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(ClusterConfig config, ReadClusterFile(path));
  std::unique_ptr<ClusterWatch> watch(new ClusterWatch(path, std::move(config)));
  watch->thread_ = std::thread([watch = watch.get()] { watch->Run(); });
  return watch;
}

ClusterWatch::~ClusterWatch() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
}

std::shared_ptr<const ClusterConfig> ClusterWatch::Get() const {
  const MutexLock lock(mutex_);
  return config_;
}

void ClusterWatch::Run() {
  while (true) {
    {
      const MutexLock lock(mutex_);
      if (stopping_) return;
      wake_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kLookEvery);
      if (stopping_) return;
    }
    Reload();
  }
}

// Reading all of it is as cheap as asking for its time, and sees changes that are close together.
void ClusterWatch::Reload() {
  const MutexLock reading(reload_mutex_);
  auto text = ReadFile(path_);
  if (text.ok() && *text == last_text_) return;
  absl::Status status = text.status();
  if (status.ok()) {
    last_text_ = *std::move(text);
    auto config = ParseClusterFile(last_text_, path_);
    status = config.ok() ? Take(*config) : config.status();
  } else {
    const bool told = last_text_.empty();
    last_text_.clear();
    if (told) return;
  }
  if (!status.ok()) spdlog::error("what was read before stays in force: {}", MessageOf(status));
}

absl::Status ClusterWatch::Update(const std::function<absl::Status(ClusterConfig&)>& change) {
  const MutexLock reading(reload_mutex_);
  RETRO_ASSIGN_OR_RETURN(ClusterConfig config, UpdateClusterFile(path_, change));
  last_text_ = FormatClusterFile(config);
  return Take(std::move(config));
}

void ClusterWatch::SetListener(std::function<void()> listener) {
  const MutexLock reading(reload_mutex_);
  listener_ = std::move(listener);
}

absl::Status ClusterWatch::Take(ClusterConfig config) {
  {
    const MutexLock lock(mutex_);
    if (config.version < config_->version) {
      return Mismatch(path_,
                      StrCat("has version ", config.version, ", version ", config_->version, " was read before"));
    }
    if (config.version == config_->version) {
      if (config.Fingerprint() == config_->Fingerprint()) return absl::OkStatus();
      return Mismatch(path_, StrCat("was changed and kept version ", config.version, ": raise it"));
    }
    if (!SameShape(config, *config_)) {
      return Mismatch(path_, "has another name, store id, or other shards or slots: start all processes again with it");
    }
    config_ = std::make_shared<const ClusterConfig>(std::move(config));
  }
  if (listener_) listener_();
  return absl::OkStatus();
}

}  // namespace retro
