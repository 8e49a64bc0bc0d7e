#include "retriever_service/shard/shard_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "common/document/item_error.h"
#include "retriever_service/shard/change_rules.h"

namespace retro {
namespace {

// A group is written when it reaches either; what does not fit goes into the next one.
constexpr int kGroupChangesMax = 1024;
constexpr size_t kGroupBytesMax = size_t{16} << 20;
// For sealing, if an index has more than kFrozenMax segments left to be sealed: changes still pass, a group in this
// time. Of a replica that is slower than its primary, which has waited for its own, so many that it pulls more seldom.
constexpr absl::Duration kPatience = absl::Seconds(2);
constexpr absl::Duration kPatienceStep = absl::Milliseconds(50);
constexpr size_t kReplayedFrozenMax = 2 * kFrozenMax;
// Of a deletion by filter, whose ids are in memory at once; it goes on with those that match when these are done.
constexpr size_t kMatchesMax = 16'384;
constexpr size_t kCollectionsMax = 100;  // each has an index with threads of its own

}  // namespace

// Changes that become durable together, and what follows from them.
class ShardWriter::Group {
 public:
  explicit Group(const Store& store) : transaction(store.Begin()) {}

  // A collection that is dropped is the last change: what was meant for it, too, comes after.
  bool full() const {
    return transaction.changes() >= kGroupChangesMax || transaction.bytes() >= kGroupBytesMax || dropped != nullptr;
  }
  void Changed(const std::shared_ptr<LiveCollection>& collection, IndexChange change) {
    index_changes[collection].push_back(std::move(change));
  }

  Transaction transaction;
  std::map<std::shared_ptr<LiveCollection>, std::vector<IndexChange>> index_changes;
  std::vector<std::shared_ptr<LiveCollection>> new_collections;
  std::shared_ptr<LiveCollection> dropped;
  std::vector<Job*> jobs;  // that have a part in it
  bool leads = false;      // once it is durable, changes are accepted
};

// What a caller brought: a row of changes, staged one after the other.
class ShardWriter::Job {
 public:
  explicit Job(const CallContext& context) : context_(context) {}
  virtual ~Job() = default;

  // True if it must see what earlier jobs did in the collections.
  virtual bool BeginsAGroup() const { return false; }
  virtual bool IsAChange() const { return true; }                       // which only a primary accepts
  virtual const LiveCollection* collection() const { return nullptr; }  // that its changes are of
  virtual bool AllStaged() const = 0;
  // An error fails the job; what it has staged before stays.
  virtual absl::Status StageNext(Group& group) = 0;

  const CallContext& context() const { return context_; }

  // The writer's: null while the job is under way.
  std::optional<absl::Status> result;
  bool begun = false;  // some of it is done

 private:
  const CallContext& context_;
};

// ---------------------------------------------------------------- jobs

class ShardWriter::WriteJob : public Job {
 public:
  WriteJob(std::shared_ptr<LiveCollection> collection, const shardpb::WriteRequest& request, const CallContext& context)
      : Job(context), collection_(std::move(collection)), request_(request) {}

  const LiveCollection* collection() const override { return collection_.get(); }
  bool AllStaged() const override { return response.results_size() == request_.changes_size(); }

  absl::Status StageNext(Group& group) override {
    const shardpb::DocumentChange& change = request_.changes(response.results_size());
    RETRO_ASSIGN_OR_RETURN(const auto old, group.transaction.FindDocument(collection_->id, change.document().id()));
    shardpb::ChangeResult& result = *response.add_results();
    const absl::StatusOr<Verdict> verdict = Judge(old, change, collection_->spec.dimension());
    if (!verdict.ok()) {
      *result.mutable_error() = ToItemError(verdict.status());
    } else {
      CarryOut(*verdict, old, change, group, result);
    }
    return absl::OkStatus();
  }

  shardpb::WriteResponse response;

 private:
  void CarryOut(Verdict verdict, const std::optional<shardpb::DocumentRecord>& old,
                const shardpb::DocumentChange& change, Group& group, shardpb::ChangeResult& result) {
    switch (verdict) {
      case Verdict::kCreate:
      case Verdict::kReplace:
        result.set_outcome(old.has_value() ? shardpb::CHANGE_OUTCOME_REPLACED : shardpb::CHANGE_OUTCOME_CREATED);
        return Put(group.transaction.PutDocument(collection_->id, change, old), VectorsOf(change), group, result);
      case Verdict::kReplaceMetadata:
        result.set_outcome(shardpb::CHANGE_OUTCOME_REPLACED);
        return Put(group.transaction.PutMetadata(collection_->id, change, *old), {}, group, result);
      case Verdict::kStoreVersion:
        result.set_outcome(shardpb::CHANGE_OUTCOME_UNCHANGED);
        return Put(group.transaction.PutMetadata(collection_->id, change, *old), {}, group, result);
      case Verdict::kUnchanged:
        result.set_outcome(shardpb::CHANGE_OUTCOME_UNCHANGED);
        return result.set_chunk_count(old->chunks().count());
      case Verdict::kNeedsChunks:
        return result.set_outcome(shardpb::CHANGE_OUTCOME_NEEDS_CHUNKS);
    }
  }

  void Put(const shardpb::DocumentRecord& record, std::string vectors, Group& group, shardpb::ChangeResult& result) {
    result.set_chunk_count(record.chunks().count());
    auto document = std::make_shared<const IndexedDocument>(ToIndexedDocument(record));
    group.Changed(collection_, {record.document().id(), std::move(document), std::move(vectors)});
  }

  const std::shared_ptr<LiveCollection> collection_;
  const shardpb::WriteRequest& request_;
};

class ShardWriter::DeleteJob : public Job {
 public:
  // `filter`: what the documents must still match when their turn comes.
  DeleteJob(std::shared_ptr<LiveCollection> collection, std::span<const std::string> ids,
            const std::optional<CompiledFilter>& filter, const CallContext& context)
      : Job(context), collection_(std::move(collection)), ids_(ids), filter_(filter) {}

  const LiveCollection* collection() const override { return collection_.get(); }
  bool AllStaged() const override { return next_ == ids_.size(); }

  absl::Status StageNext(Group& group) override {
    const std::string& id = ids_[next_++];
    RETRO_ASSIGN_OR_RETURN(const auto old, group.transaction.FindDocument(collection_->id, id));
    if (!old.has_value()) return absl::OkStatus();
    if (filter_.has_value() && !filter_->Matches(ToIndexedDocument(*old))) return absl::OkStatus();
    group.transaction.RemoveDocument(collection_->id, *old);
    group.Changed(collection_, {id, nullptr, {}});
    ++deleted;
    return absl::OkStatus();
  }

  uint64_t deleted = 0;

 private:
  const std::shared_ptr<LiveCollection> collection_;
  const std::span<const std::string> ids_;
  const std::optional<CompiledFilter>& filter_;
  size_t next_ = 0;
};

class ShardWriter::CreateCollectionJob : public Job {
 public:
  CreateCollectionJob(const Store& store, LiveCollections& collections, const pb::CollectionSpec& spec,
                      const CallContext& context)
      : Job(context), store_(store), collections_(collections), spec_(spec) {}

  bool BeginsAGroup() const override { return true; }
  bool AllStaged() const override { return staged_; }

  absl::Status StageNext(Group& group) override {
    staged_ = true;
    const auto existing = collections_.Find(spec_.name());
    if (existing.ok()) return CheckIsTheSame((*existing)->spec);
    if (collections_.size() >= kCollectionsMax) {
      return FieldError("spec.name",
                        StrCat("there are ", kCollectionsMax, " collections, which is the most: drop one"));
    }
    const uint32_t id = group.transaction.CreateCollection(spec_);
    group.new_collections.push_back(collections_.Make(store_, {id, spec_}));
    group.new_collections.back()->index->Filled();
    return absl::OkStatus();
  }

 private:
  // Whatever an embedder of the same name makes of its self-test there, up to rounding.
  absl::Status CheckIsTheSame(pb::CollectionSpec existing) const {
    existing.set_self_test_vector(spec_.self_test_vector());
    if (existing.SerializeAsString() == spec_.SerializeAsString()) return absl::OkStatus();
    return Error(absl::StatusCode::kAlreadyExists, Reason::kCollectionExists,
                 StrCat("collection \"", spec_.name(), "\" exists and was made otherwise: take another name"));
  }

  const Store& store_;
  LiveCollections& collections_;
  const pb::CollectionSpec& spec_;
  bool staged_ = false;
};

class ShardWriter::DropCollectionJob : public Job {
 public:
  DropCollectionJob(const LiveCollections& collections, const std::string& name, const CallContext& context)
      : Job(context), collections_(collections), name_(name) {}

  bool BeginsAGroup() const override { return true; }
  bool AllStaged() const override { return staged_; }

  absl::Status StageNext(Group& group) override {
    staged_ = true;
    if (name_.empty()) return FieldError("name", "the default collection cannot be dropped; delete its documents");
    const auto collection = collections_.Find(name_);
    if (!collection.ok()) return absl::OkStatus();
    group.transaction.DropCollection({(*collection)->id, (*collection)->spec});
    group.dropped = *collection;
    found = true;
    return absl::OkStatus();
  }

  bool found = false;

 private:
  const LiveCollections& collections_;
  const std::string& name_;
  bool staged_ = false;
};

class ShardWriter::LeadJob : public Job {
 public:
  LeadJob(uint64_t epoch, const shardpb::EpochStart& start, const CallContext& context)
      : Job(context), epoch_(epoch), start_(start) {}

  bool BeginsAGroup() const override { return true; }
  bool IsAChange() const override { return false; }
  bool AllStaged() const override { return staged_; }

  absl::Status StageNext(Group& group) override {
    staged_ = true;
    const uint64_t newest = group.transaction.position().epoch();
    if (epoch_ < newest) {
      return Error(absl::StatusCode::kFailedPrecondition, Reason::kStaleEpoch,
                   StrCat("the store has changes of epoch ", newest, ", the cluster file is in epoch ", epoch_,
                          ": give it the newest cluster file"));
    }
    if (epoch_ > newest) group.transaction.StartEpoch(epoch_, start_);
    group.leads = true;
    return absl::OkStatus();
  }

 private:
  const uint64_t epoch_;
  const shardpb::EpochStart& start_;
  bool staged_ = false;
};

class ShardWriter::FollowJob : public Job {
 public:
  FollowJob(bool& accepts_changes, const CallContext& context) : Job(context), accepts_changes_(accepts_changes) {}

  bool BeginsAGroup() const override { return true; }
  bool IsAChange() const override { return false; }
  bool AllStaged() const override { return staged_; }

  absl::Status StageNext(Group&) override {
    staged_ = true;
    accepts_changes_ = false;
    return absl::OkStatus();
  }

 private:
  bool& accepts_changes_;
  bool staged_ = false;
};

class ShardWriter::ReplayJob : public Job {
 public:
  ReplayJob(const Store& store, LiveCollections& collections, const std::vector<shardpb::PullChangesResponse>& changes,
            const CallContext& context)
      : Job(context), store_(store), collections_(collections), changes_(changes) {}

  bool BeginsAGroup() const override { return true; }
  bool IsAChange() const override { return false; }
  bool AllStaged() const override { return next_ == changes_.size(); }

  absl::Status StageNext(Group& group) override {
    const shardpb::PullChangesResponse& replicated = changes_[next_++];
    const shardpb::Change& change = replicated.change();
    const bool of_document = change.has_put() || change.has_remove();
    const bool of_one_there = of_document || change.has_drop_collection();
    const auto collection = of_one_there ? CollectionOf(change.collection_id(), group) : nullptr;
    if (of_one_there && collection == nullptr) {
      return absl::InternalError("a change of a collection that the log never made");
    }
    std::string vectors;
    if (change.has_put()) {
      RETRO_ASSIGN_OR_RETURN(vectors, VectorsOf(replicated, collection->spec.dimension()));
    }
    RETRO_RETURN_IF_ERROR(group.transaction.Replay(replicated));
    if (change.has_drop_collection()) group.dropped = collection;
    if (change.has_create_collection()) {
      group.new_collections.push_back(collections_.Make(store_, {change.collection_id(), change.create_collection()}));
      group.new_collections.back()->index->Filled();
      return absl::OkStatus();
    }
    if (!of_document) return absl::OkStatus();
    if (change.has_remove()) {
      group.Changed(collection, {change.remove().document_id(), nullptr, {}});
      return absl::OkStatus();
    }
    const shardpb::DocumentRecord& record = change.put().record();
    auto document = std::make_shared<const IndexedDocument>(ToIndexedDocument(record));
    group.Changed(collection, {record.document().id(), std::move(document), std::move(vectors)});
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<LiveCollection> CollectionOf(uint32_t id, const Group& group) const {
    for (const auto& made : group.new_collections) {
      if (made->id == id) return made;
    }
    return collections_.FindById(id);
  }

  const Store& store_;
  LiveCollections& collections_;
  const std::vector<shardpb::PullChangesResponse>& changes_;
  size_t next_ = 0;
};

// Writes for itself, between two groups of changes.
class ShardWriter::TrimJob : public Job {
 public:
  TrimJob(Store& store, uint64_t changes, const CallContext& context)
      : Job(context), store_(store), changes_(changes) {}

  bool BeginsAGroup() const override { return true; }
  bool IsAChange() const override { return false; }
  bool AllStaged() const override { return staged_; }

  absl::Status StageNext(Group&) override {
    staged_ = true;
    RETRO_ASSIGN_OR_RETURN(more, store_.TrimLogTo(changes_));
    return absl::OkStatus();
  }

  bool more = false;

 private:
  Store& store_;
  const uint64_t changes_;
  bool staged_ = false;
};

// ---------------------------------------------------------------- callers' side

ShardWriter::ShardWriter(Store& store, LiveCollections& collections, AppliedPosition& applied, bool accepts_changes)
    : store_(store), collections_(collections), applied_(applied), accepts_changes_(accepts_changes), thread_([this] {
        Run();
      }) {}

ShardWriter::~ShardWriter() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    brought_.NotifyAll();
  }
  thread_.join();
}

absl::StatusOr<shardpb::WriteResponse> ShardWriter::Write(const shardpb::WriteRequest& request,
                                                          const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckEpoch(request.epoch()));
  RETRO_ASSIGN_OR_RETURN(const auto collection, collections_.Find(request.collection()));
  RETRO_RETURN_IF_ERROR(CheckEmbedder(*collection, request.embedder_fingerprint()));
  RETRO_RETURN_IF_ERROR(CheckTokenizer(*collection, request.tokenizer_fingerprint()));
  WriteJob job(collection, request, context);
  RETRO_RETURN_IF_ERROR(Perform(job));
  *job.response.mutable_position() = applied_.Get();
  return std::move(job.response);
}

absl::StatusOr<shardpb::DeleteResponse> ShardWriter::Delete(const shardpb::DeleteRequest& request,
                                                            const CallContext& context, const Between& between) {
  RETRO_RETURN_IF_ERROR(CheckEpoch(request.epoch()));
  RETRO_ASSIGN_OR_RETURN(const auto collection, collections_.Find(request.collection()));
  std::optional<CompiledFilter> filter;
  uint64_t newest = 0;  // of the filter's: what is written meanwhile is not met, however fast it comes
  if (request.has_filter()) {
    if (!request.document_ids().empty()) return FieldError("filter", "give ids or a filter, not both");
    RETRO_ASSIGN_OR_RETURN(filter, CompiledFilter::Compile(request.filter(), "filter"));
    RETRO_ASSIGN_OR_RETURN(newest, collection->index->NewestMatching(*filter, context));
  }
  std::vector<std::string> ids = {request.document_ids().begin(), request.document_ids().end()}, done;
  shardpb::DeleteResponse response;
  bool begun = false;
  do {
    if (filter.has_value()) {
      done = std::move(ids);
      RETRO_ASSIGN_OR_RETURN(ids, collection->index->MatchingDocuments(*filter, newest, kMatchesMax, context));
    }
    for (std::span<const std::string> left = ids; !left.empty();) {
      const auto part = left.first(std::min<size_t>(left.size(), kGroupChangesMax));
      if (const absl::Status go_on = begun ? between(applied_.Get()) : absl::OkStatus(); !go_on.ok()) {
        return DoneInPart(go_on);
      }
      DeleteJob job(collection, part, filter, context);
      RETRO_RETURN_IF_ERROR(Perform(job, begun));
      begun = true;
      response.set_deleted_count(response.deleted_count() + job.deleted);
      left = left.subspan(part.size());
    }
    // What is deleted matches no more, even if another deletion was faster. What still does is in the index alone.
  } while (filter.has_value() && ids.size() == kMatchesMax && ids != done);
  *response.mutable_position() = applied_.Get();
  return response;
}

absl::StatusOr<shardpb::CreateCollectionResponse> ShardWriter::CreateCollection(
    const shardpb::CreateCollectionRequest& request, const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckEpoch(request.epoch()));
  CreateCollectionJob job(store_, collections_, request.spec(), context);
  RETRO_RETURN_IF_ERROR(Perform(job));
  shardpb::CreateCollectionResponse response;
  *response.mutable_position() = applied_.Get();
  return response;
}

absl::StatusOr<shardpb::DropCollectionResponse> ShardWriter::DropCollection(
    const shardpb::DropCollectionRequest& request, const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckEpoch(request.epoch()));
  DropCollectionJob job(collections_, request.name(), context);
  RETRO_RETURN_IF_ERROR(Perform(job));
  shardpb::DropCollectionResponse response;
  response.set_found(job.found);
  *response.mutable_position() = applied_.Get();
  return response;
}

absl::Status ShardWriter::Lead(uint64_t epoch, const shardpb::EpochStart& start) {
  const CallContext context;
  LeadJob job(epoch, start, context);
  return Perform(job);
}

absl::Status ShardWriter::Follow() {
  const CallContext context;
  FollowJob job(accepts_changes_, context);
  return Perform(job);
}

absl::Status ShardWriter::Replay(const std::vector<shardpb::PullChangesResponse>& changes) {
  const CallContext context;
  ReplayJob job(store_, collections_, changes, context);
  return Perform(job);
}

absl::Status ShardWriter::TrimLogTo(uint64_t changes, const std::function<absl::Status()>& go_on) {
  const CallContext context;
  for (bool more = true; more;) {
    RETRO_RETURN_IF_ERROR(go_on());
    TrimJob job(store_, changes, context);
    RETRO_RETURN_IF_ERROR(Perform(job));
    more = job.more;
  }
  return absl::OkStatus();
}

absl::Status ShardWriter::CheckEpoch(uint64_t epoch) const {
  const uint64_t own = applied_.Get().epoch();
  if (epoch == 0 || epoch >= own) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kStaleEpoch,
               StrCat("the shard is in epoch ", own, ", the call in ", epoch, ": read the cluster file again"));
}

absl::Status ShardWriter::Perform(Job& job, bool begun) {
  const MutexLock lock(mutex_);
  queue_.push_back(&job);
  brought_.NotifyOne();
  while (!job.result.has_value()) ended_.Wait(mutex_);
  const bool undone = job.result->ok() || !job.IsAChange() || !(begun || job.begun);
  return undone || ReasonOf(*job.result) == Reason::kCallerGone ? *job.result : DoneInPart(*job.result);
}

// ---------------------------------------------------------------- the thread

bool ShardWriter::TakeJobs(std::deque<Job*>& line) {
  const MutexLock lock(mutex_);
  while (line.empty() && queue_.empty() && !stopping_) brought_.Wait(mutex_);
  line.insert(line.end(), queue_.begin(), queue_.end());
  queue_.clear();
  return !line.empty();
}

void ShardWriter::End(Job& job, const absl::Status& status) {
  const MutexLock lock(mutex_);
  job.result = status;
  ended_.NotifyAll();
}

// A group a round. A job with more changes than one group holds goes on behind those that came meanwhile.
void ShardWriter::Run() {
  std::deque<Job*> line;
  while (TakeJobs(line)) {
    Group group(store_);
    while (!line.empty() && !group.full()) {
      if (line.front()->BeginsAGroup() && !group.jobs.empty()) break;
      Stage(*line.front(), group);
      line.pop_front();
    }
    Flush(std::move(group), line);
    if (const absl::Status status = store_.TrimLog(); !status.ok()) {
      spdlog::warn("the change log could not be trimmed: {}", MessageOf(status));
    }
  }
}

void ShardWriter::Stage(Job& job, Group& group) {
  absl::Status status = job.context().Check();  // nothing is done for a caller who left
  if (status.ok() && job.IsAChange() && !accepts_changes_) {
    status = Error(absl::StatusCode::kFailedPrecondition, Reason::kStaleEpoch,
                   "this replica is not its shard's primary: read the cluster file again");
  }
  if (const LiveCollection* collection = job.collection();
      status.ok() && collection != nullptr && collection->dropped) {
    status = NoSuchCollection(collection->spec.name());
  }
  bool staged = false;
  while (status.ok() && !job.AllStaged() && !group.full()) {
    status = job.StageNext(group);
    if (status.ok()) {
      staged = true;
    } else {
      job.begun |= staged;  // which stays
    }
  }
  if (status.ok()) {
    group.jobs.push_back(&job);
  } else {
    End(job, status);
  }
}

// An epoch that begins waits for nothing: until it has, no replica can pull.
bool ShardWriter::MustHurry(const std::deque<Job*>& line) {
  const auto begins = [](const Job* job) { return job->BeginsAGroup(); };
  const MutexLock lock(mutex_);
  return std::ranges::any_of(line, begins) || std::ranges::any_of(queue_, begins);
}

void ShardWriter::WaitForSealing(const SegmentedIndex& index, size_t frozen_max, absl::Time end,
                                 const std::deque<Job*>& line) {
  while (absl::Now() < end && !MustHurry(line)) {
    const absl::Time next = absl::Now() + kPatienceStep;
    if (index.WaitForMaintenance(frozen_max, kPatienceStep).ok()) return;
    absl::SleepFor(next - absl::Now());  // if sealing fails, what fills the index is slowed down too
  }
}

void ShardWriter::Flush(Group group, std::deque<Job*>& line) {
  const shardpb::Position position = group.transaction.position();
  const auto is_replayed = [](const Job* job) { return !job->IsAChange(); };
  const bool replayed = std::any_of(group.jobs.begin(), group.jobs.end(), is_replayed);
  const absl::Time patient_until = absl::Now() + kPatience;  // with all of them
  for (const auto& [collection, changes] : group.index_changes) {
    const auto puts = [](const IndexChange& change) { return change.document != nullptr; };
    if (std::any_of(changes.begin(), changes.end(), puts)) {
      WaitForSealing(*collection->index, replayed ? kReplayedFrozenMax : kFrozenMax, patient_until, line);
    }
  }
  const absl::Status status = store_.Commit(std::move(group.transaction));
  if (status.ok()) {
    for (const auto& collection : group.new_collections) collections_.Add(collection);
    for (auto& [collection, changes] : group.index_changes) collection->index->Apply(std::move(changes), position);
    if (group.dropped != nullptr) {
      group.dropped->dropped = true;
      collections_.Remove(*group.dropped);
    }
    applied_.Advance(position);
    group.index_changes.clear();
    group.dropped.reset();  // with its index, unless somebody uses it still
    if (group.leads) accepts_changes_ = true;
  }
  for (Job* job : group.jobs) {
    job->begun |= status.ok();
    if (status.ok() && !job->AllStaged()) {
      line.push_back(job);
    } else {
      End(*job, status);
    }
  }
}

}  // namespace retro
