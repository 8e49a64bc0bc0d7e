#include "retriever_service/shard/operations.h"

#include <google/protobuf/util/time_util.h>

#include <random>
#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"

namespace retro {
namespace {

using google::protobuf::util::TimeUtil;

constexpr size_t kWaitingMax = 16;
constexpr int64_t kKeptSeconds = int64_t{24} * 3600;
constexpr std::chrono::milliseconds kRetryAfter{10'000};

}  // namespace

Operations::Operations()
    : run_(StrCat("op-", std::random_device()(), "-")), maintenance_(1, kWaitingMax), snapshots_(1, kWaitingMax) {}

Operations::~Operations() {
  std::map<std::string, std::function<void()>> cancels;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    cancels = cancels_;
  }
  for (const auto& [id, cancel] : cancels) cancel();
  maintenance_.Stop();
  snapshots_.Stop();
}

absl::StatusOr<admin::v1::Operation> Operations::Begin(Line line, std::function<absl::Status(const Progress&)> work,
                                                       std::function<void()> cancel) {
  admin::v1::Operation operation;
  operation.set_state(admin::v1::OPERATION_STATE_RUNNING);
  *operation.mutable_start_time() = TimeUtil::GetCurrentTime();
  {
    const MutexLock lock(mutex_);
    operation.set_operation_id(StrCat(run_, ++begun_));
    operations_.remove_if([](const admin::v1::Operation& old) {
      return old.has_end_time() && TimeUtil::GetCurrentTime().seconds() - old.end_time().seconds() > kKeptSeconds;
    });
    operations_.push_back(operation);
    cancels_[operation.operation_id()] = std::move(cancel);
  }
  const std::string id = operation.operation_id();
  if (WorkerOf(line).Submit([this, id, work = std::move(work)] { Run(id, work); })) return operation;
  const MutexLock lock(mutex_);
  operations_.remove_if([&id](const admin::v1::Operation& refused) { return refused.operation_id() == id; });
  cancels_.erase(id);
  return QueueFullError("the queue of operations", kRetryAfter);
}

void Operations::Run(const std::string& id, const std::function<absl::Status(const Progress&)>& work) {
  const Progress progress = [this, &id](float done) -> absl::Status {
    Change(id, [done](admin::v1::Operation& running) { running.set_progress(done); });
    if (!stopping_) return absl::OkStatus();
    return Error(absl::StatusCode::kCancelled, Reason::kShuttingDown, "the server is stopping");
  };
  absl::Status status = progress(0);
  if (status.ok()) status = work(progress);
  Change(id, [&status](admin::v1::Operation& ended) {
    ended.set_state(status.ok() ? admin::v1::OPERATION_STATE_SUCCEEDED : admin::v1::OPERATION_STATE_FAILED);
    if (status.ok()) ended.set_progress(1);
    ended.set_message(std::string(MessageOf(status)));
    *ended.mutable_end_time() = TimeUtil::GetCurrentTime();
  });
  std::function<void()> cancel;  // what it holds may take its time to end: not under the lock
  const MutexLock lock(mutex_);
  cancel.swap(cancels_[id]);
  cancels_.erase(id);
}

absl::StatusOr<admin::v1::Operation> Operations::Get(const std::string& id) const {
  const MutexLock lock(mutex_);
  for (const admin::v1::Operation& operation : operations_) {
    if (operation.operation_id() == id) return operation;
  }
  return Error(absl::StatusCode::kNotFound, Reason::kNotFound,
               StrCat("there is no operation \"", id, "\" of this process, or it ended long ago"));
}

void Operations::Change(const std::string& id, const std::function<void(admin::v1::Operation&)>& change) {
  const MutexLock lock(mutex_);
  for (admin::v1::Operation& operation : operations_) {
    if (operation.operation_id() == id) change(operation);
  }
}

}  // namespace retro
