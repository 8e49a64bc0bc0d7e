#include "retriever_service/query/shard_map.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr size_t kFanOutQueueMax = 1 << 16;  // callers are bounded before

// Of an answer that is none of its change's.
bool MayHaveChanged(const absl::Status& answer) {
  const auto reason = ReasonOf(answer);
  return reason == Reason::kWriteOutcomeUnknown || reason == Reason::kCallerGone;
}

}  // namespace

absl::Status AnswerOfAll(const std::vector<absl::Status>& answers, const std::vector<bool>& changed) {
  const auto is_ok = [](const absl::Status& answer) { return answer.ok(); };
  const auto failed = std::find_if_not(answers.begin(), answers.end(), is_ok);
  if (failed == answers.end()) return absl::OkStatus();
  const auto count = std::count(changed.begin(), changed.end(), true);
  if (count > 0) {
    return Error(absl::StatusCode::kUnavailable, Reason::kWriteOutcomeUnknown,
                 StrCat("done on ", count, " of ", answers.size(), " shards, repeat it: ", MessageOf(*failed)));
  }
  const auto unknown = std::find_if(answers.begin(), answers.end(), MayHaveChanged);
  return unknown == answers.end() ? *failed : *unknown;
}

ShardMap::ShardMap(std::vector<std::unique_ptr<Shard>> shards) : shards_(std::move(shards)) {
  if (shards_.size() > 1) {
    const int threads = kFanOutThreadsPerShard * static_cast<int>(shards_.size());
    reading_ = std::make_unique<WorkerPool>(threads, kFanOutQueueMax);
    changing_ = std::make_unique<WorkerPool>(threads, kFanOutQueueMax);
  }
}

absl::StatusOr<std::unique_ptr<ShardMap>> ShardMap::Create(std::vector<std::unique_ptr<Shard>> shards) {
  std::unique_ptr<ShardMap> map(new ShardMap(std::move(shards)));
  for (uint32_t i = 0; i < map->size(); ++i) {
    map->last_slots_.push_back((kSlotCount * (i + 1) + map->size() - 1) / map->size() - 1);
    RETRO_ASSIGN_OR_RETURN(const shardpb::GetShardInfoResponse info, map->shard(i).GetShardInfo({}, {}));
    if (i == 0) map->store_id_ = info.store_id();
    if (info.store_id() != map->store_id_ || info.shard() != i || info.shard_count() != map->size()) {
      return Error(absl::StatusCode::kFailedPrecondition, Reason::kForeignStore,
                   StrCat("the shard taken for number ", i, " of ", map->size(), " is number ", info.shard(), " of ",
                          info.shard_count(), info.store_id() == map->store_id_ ? "" : " of another store",
                          "; check the cluster file"));
    }
  }
  return map;
}

std::unique_ptr<ShardMap> ShardMap::OfCluster(std::vector<std::unique_ptr<Shard>> shards, std::string store_id,
                                              std::vector<uint32_t> last_slots) {
  std::unique_ptr<ShardMap> map(new ShardMap(std::move(shards)));
  map->store_id_ = std::move(store_id);
  map->last_slots_ = std::move(last_slots);
  return map;
}

uint32_t ShardMap::ShardOfDocument(const std::string& document_id) const {
  const auto it = std::lower_bound(last_slots_.begin(), last_slots_.end(), SlotOfDocument(document_id));
  return static_cast<uint32_t>(it - last_slots_.begin());
}

absl::StatusOr<pb::CollectionSpec> ShardMap::Collection(const std::string& name) {
  {
    MutexLock lock(mutex_);
    for (const auto& spec : collections_) {
      if (spec.name() == name) return spec;
    }
  }
  return Ask(name, {});  // made since, perhaps
}

absl::StatusOr<pb::CollectionSpec> ShardMap::CollectionNow(const std::string& name, const CallContext& context) {
  return name.empty() ? Collection(name) : Ask(name, context);
}

absl::StatusOr<pb::CollectionSpec> ShardMap::Ask(const std::string& name, const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(const auto collections, Collections(context));
  for (const auto& spec : collections) {
    if (spec.name() == name) return spec;
  }
  return Error(absl::StatusCode::kNotFound, Reason::kCollectionNotFound,
               StrCat("there is no collection named \"", name, "\""));
}

void ShardMap::Forget(const std::string& name) {
  const MutexLock lock(mutex_);
  std::erase_if(collections_, [&](const pb::CollectionSpec& spec) { return spec.name() == name; });
}

absl::Status ShardMap::Heed(absl::Status status, const std::string& name) {
  if (ReasonOf(status) == Reason::kCollectionNotFound) Forget(name);
  return status;
}

absl::StatusOr<std::vector<pb::CollectionSpec>> ShardMap::Collections(const CallContext& context) {
  absl::Status error;
  for (uint32_t i = 0; i < size(); ++i) {  // any shard knows them
    const absl::StatusOr<shardpb::GetShardInfoResponse> info = shard(i).GetShardInfo({}, context);
    if (!info.ok()) {
      error = info.status();
      continue;
    }
    MutexLock lock(mutex_);
    collections_.assign(info->collections().begin(), info->collections().end());
    return collections_;
  }
  return error;
}

std::vector<absl::Status> ShardMap::AskAll(const std::function<absl::Status(uint32_t, Shard&)>& ask) {
  return CallAll(reading_.get(), ask);
}

std::vector<absl::Status> ShardMap::ChangeAll(const std::function<absl::Status(uint32_t, Shard&)>& change) {
  return CallAll(changing_.get(), change);
}

std::vector<absl::Status> ShardMap::CallAll(WorkerPool* beside,
                                            const std::function<absl::Status(uint32_t, Shard&)>& call) {
  std::vector<absl::Status> answers(size());
  Mutex mutex;
  CondVar answered;
  uint32_t missing = size() - 1;
  for (uint32_t i = 1; i < size(); ++i) {
    const bool taken = beside->Submit([&, i] {
      absl::Status status = call(i, shard(i));
      MutexLock lock(mutex);
      answers[i] = std::move(status);
      if (--missing == 0) answered.NotifyOne();
    });
    if (!taken) {
      MutexLock lock(mutex);
      answers[i] = QueueFullError("the queue of shard calls", std::chrono::milliseconds(200));
      --missing;
    }
  }
  answers[0] = call(0, shard(0));
  MutexLock lock(mutex);
  while (missing > 0) answered.Wait(mutex);
  return answers;
}

}  // namespace retro
