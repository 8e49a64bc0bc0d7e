#include "cli/ingest_stream.h"

#include <algorithm>
#include <utility>

#include "common/base/strings.h"

namespace retro::cli {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kCloseWait{2000};  // for a server to end a stream whose work is done

// Failures of the way to the server, or of its moment: worth another try.
bool IsWorthRetrying(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:  // ended early, as a server does that shuts down
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::CANCELLED:
      return true;
    default:
      return false;
  }
}

}  // namespace

IngestStream::IngestStream(pb::RetrieverService::Stub& stub, IngestOptions options)
    : stub_(stub), options_(std::move(options)), last_sign_(steady_clock::now()), watcher_([this] { WatchLoop(); }) {}

IngestStream::~IngestStream() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (attempt_ != nullptr) {
    attempt_->context.TryCancel();
    Close();
  }
  watcher_.join();
}

grpc::Status IngestStream::Send(pb::DocumentWrite write, IngestTag tag) {
  auto request = std::make_shared<pb::IngestRequest>();
  request->set_collection(options_.collection);
  request->set_sequence(next_sequence_++);
  *request->mutable_write() = std::move(write);
  const size_t bytes = request->ByteSizeLong();
  if (grpc::Status status = Drive(Goal::kRoom, bytes); !status.ok()) return status;
  {
    MutexLock lock(mutex_);
    last_of_id_[request->write().document().id()] = request->sequence();
    pending_.push_back({std::move(request), {std::move(tag), {}}, bytes});
    queue_.push_back(&pending_.back());
    pending_bytes_ += bytes;
  }
  return Drive(Goal::kAllSent);
}

grpc::Status IngestStream::Finish() {
  if (grpc::Status status = Drive(Goal::kAllAcknowledged); !status.ok()) return status;
  if (attempt_ == nullptr) return grpc::Status::OK;
  attempt_->stream->WritesDone();
  {
    MutexLock lock(mutex_);
    const auto deadline = steady_clock::now() + kCloseWait;
    while (!broken_ && changed_.WaitUntil(mutex_, deadline)) {
    }
  }
  attempt_->context.TryCancel();  // does nothing to a call that has ended
  Close();                        // everything is acknowledged: however the call ends, nothing is lost
  return grpc::Status::OK;
}

std::vector<IngestAcknowledgement> IngestStream::TakeAcknowledgements() {
  MutexLock lock(mutex_);
  return std::exchange(acknowledgements_, {});
}

size_t IngestStream::unacknowledged_count() {
  MutexLock lock(mutex_);
  return static_cast<size_t>(
      std::count_if(pending_.begin(), pending_.end(), [](const Pending& one) { return one.request != nullptr; }));
}

void IngestStream::Open() {
  attempt_ = std::make_unique<Attempt>();
  attempt_->cancel.emplace(attempt_->context);
  attempt_->stream = stub_.Ingest(&attempt_->context);
  {
    MutexLock lock(mutex_);
    context_ = &attempt_->context;
    broken_ = false;
    in_flight_.clear();
    delayed_.clear();
    queue_.clear();
    for (Pending& one : pending_) {
      if (one.request != nullptr) queue_.push_back(&one);
    }
    last_sign_ = steady_clock::now();
  }
  attempt_->reader = std::thread([this] { ReadLoop(*attempt_->stream); });
}

grpc::Status IngestStream::Close() {
  attempt_->reader.join();
  grpc::Status status = attempt_->stream->Finish();
  bool silent = false;
  bool out_of_order = false;
  {
    MutexLock lock(mutex_);
    context_ = nullptr;
    silent = silent_;
    out_of_order = out_of_order_;
  }
  attempt_.reset();
  if (silent) {
    return {grpc::StatusCode::DEADLINE_EXCEEDED,
            StrCat("no acknowledgement for too long (", options_.silence_max.count() / 1000, " s, and 1 s for each ",
                   options_.slowest_bytes_per_s, " bytes sent)")};
  }
  if (out_of_order) return {grpc::StatusCode::INTERNAL, "acknowledgements came out of order"};
  return status;
}

grpc::Status IngestStream::Recover() {
  grpc::Status status = attempt_ == nullptr ? grpc::Status::OK : Close();
  if (Interrupted()) return {grpc::StatusCode::CANCELLED, "interrupted"};
  int failures = 0;
  {
    MutexLock lock(mutex_);
    failures = ++failures_;
  }
  if (!IsWorthRetrying(status) || failures > options_.retries.max) return status;
  if (SleepUnlessInterrupted(options_.retries.PauseAfter(failures)))
    return {grpc::StatusCode::CANCELLED, "interrupted"};
  ++reconnect_count_;
  return grpc::Status::OK;
}

grpc::Status IngestStream::Drive(Goal goal, size_t bytes) {
  std::shared_ptr<const pb::IngestRequest> request;
  while (true) {
    if (Interrupted()) return {grpc::StatusCode::CANCELLED, "interrupted"};
    switch (NextStep(goal, bytes, &request)) {
      case Step::kDone:
        return grpc::Status::OK;
      case Step::kOpen:
        Open();
        break;
      case Step::kSend:
        if (attempt_->stream->Write(*request)) break;
        [[fallthrough]];
      case Step::kRecover:
        if (grpc::Status status = Recover(); !status.ok()) return status;
        break;
    }
  }
}

IngestStream::Step IngestStream::NextStep(Goal goal, size_t bytes, std::shared_ptr<const pb::IngestRequest>* request) {
  MutexLock lock(mutex_);
  while (true) {
    QueueDue(steady_clock::now());
    if (!pending_.empty() && context_ == nullptr) return Step::kOpen;
    if (!queue_.empty() && !broken_) {
      Pending* const next = queue_.front();
      queue_.pop_front();
      if (!last_of_id_.contains(next->request->write().document().id())) {
        Settle(*next);  // before the last attempt broke, a later one of its id was stored
        continue;
      }
      if (in_flight_.empty()) last_sign_ = steady_clock::now();
      in_flight_.push_back(next);
      *request = next->request;
      return Step::kSend;
    }
    if (Reached(goal, bytes)) return Step::kDone;
    if (broken_) return Step::kRecover;
    if (delayed_.empty()) {
      changed_.Wait(mutex_);
    } else {
      changed_.WaitUntil(mutex_, delayed_.begin()->first);
    }
  }
}

bool IngestStream::Reached(Goal goal, size_t bytes) {
  switch (goal) {
    case Goal::kRoom:
      return pending_.size() < options_.window_documents_max &&
             (pending_bytes_ == 0 || pending_bytes_ + bytes <= options_.window_bytes_max);
    case Goal::kAllSent:
      return queue_.empty();
    case Goal::kAllAcknowledged:
      return pending_.empty();
  }
  return false;
}

void IngestStream::QueueDue(Time now) {
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    Pending& due = *delayed_.begin()->second;
    delayed_.erase(delayed_.begin());
    if (IsLastOfItsId(due)) {
      queue_.push_back(&due);
    } else {
      Settle(due);
    }
  }
}

void IngestStream::ReadLoop(Stream& stream) {
  while (true) {
    pb::IngestResponse response;
    if (!stream.Read(&response)) break;
    if (Acknowledge(std::move(response))) continue;
    MutexLock lock(mutex_);
    out_of_order_ = true;
    context_->TryCancel();
    break;
  }
  MutexLock lock(mutex_);
  broken_ = true;
  changed_.NotifyAll();
}

bool IngestStream::Acknowledge(pb::IngestResponse response) {
  MutexLock lock(mutex_);
  if (in_flight_.empty() || in_flight_.front()->request->sequence() != response.sequence()) return false;
  Pending& pending = *in_flight_.front();
  in_flight_.pop_front();
  failures_ = 0;
  last_sign_ = steady_clock::now();
  pending.acknowledgement.result = std::move(*response.mutable_result());
  const pb::ItemError& error = pending.acknowledgement.result.error();
  int& retries = pending.acknowledgement.retries;
  if (IsPassing(error) && IsLastOfItsId(pending) && retries < options_.retries.max) {
    ++retries;
    delayed_.emplace(last_sign_ + options_.retries.PauseAfter(retries, PauseAskedFor(error)), &pending);
  } else {
    Settle(pending);
  }
  changed_.NotifyAll();
  return true;
}

bool IngestStream::IsLastOfItsId(const Pending& pending) const {
  const auto last = last_of_id_.find(pending.request->write().document().id());
  return last != last_of_id_.end() && last->second == pending.request->sequence();
}

void IngestStream::Settle(Pending& settled) {
  pending_bytes_ -= settled.bytes;
  settled.bytes = 0;
  const auto last = last_of_id_.find(settled.request->write().document().id());
  if (last != last_of_id_.end() && last->second == settled.request->sequence()) last_of_id_.erase(last);
  settled.request = nullptr;
  while (!pending_.empty() && pending_.front().request == nullptr) {
    acknowledgements_.push_back(std::move(pending_.front().acknowledgement));
    pending_.pop_front();
  }
}

std::chrono::milliseconds IngestStream::SilenceMax() const {
  return options_.silence_max + std::chrono::milliseconds(pending_bytes_ * 1000 / options_.slowest_bytes_per_s);
}

void IngestStream::WatchLoop() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    const auto due = (in_flight_.empty() ? steady_clock::now() : last_sign_) + SilenceMax();
    if (changed_.WaitUntil(mutex_, due)) continue;
    if (in_flight_.empty() || context_ == nullptr || steady_clock::now() < last_sign_ + SilenceMax()) continue;
    silent_ = true;
    context_->TryCancel();
    last_sign_ = steady_clock::now();  // the sender now sees the broken attempt
  }
}

}  // namespace retro::cli
