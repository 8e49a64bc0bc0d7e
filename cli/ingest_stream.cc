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
  while (!AwaitRoom(bytes)) {
    if (grpc::Status status = Recover(); !status.ok()) return status;
    if (grpc::Status status = SendQueued(); !status.ok()) return status;
  }
  {
    MutexLock lock(mutex_);
    if (pending_.empty()) last_sign_ = steady_clock::now();
    pending_.push_back({std::move(request), tag, bytes});
    pending_bytes_ += bytes;
  }
  return SendQueued();
}

grpc::Status IngestStream::Finish() {
  while (!AwaitAll()) {
    if (grpc::Status status = Recover(); !status.ok()) return status;
    if (grpc::Status status = SendQueued(); !status.ok()) return status;
  }
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
  return pending_.size();
}

void IngestStream::Open() {
  attempt_ = std::make_unique<Attempt>();
  attempt_->cancel.emplace(attempt_->context);
  attempt_->stream = stub_.Ingest(&attempt_->context);
  {
    MutexLock lock(mutex_);
    context_ = &attempt_->context;
    broken_ = false;
    sent_ = 0;
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
            StrCat("no acknowledgement within ", options_.silence_max.count() / 1000, " s")};
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
  if (!IsWorthRetrying(status) || failures > options_.reconnects_max) return status;
  const auto pause = std::min(options_.pause_max, options_.pause_min * (1 << std::min(failures - 1, 16)));
  if (SleepUnlessInterrupted(pause)) return {grpc::StatusCode::CANCELLED, "interrupted"};
  ++reconnect_count_;
  return grpc::Status::OK;
}

grpc::Status IngestStream::SendQueued() {
  while (true) {
    if (Interrupted()) return {grpc::StatusCode::CANCELLED, "interrupted"};
    if (attempt_ == nullptr) Open();
    const std::shared_ptr<const pb::IngestRequest> request = NextUnsent();
    if (request == nullptr) return grpc::Status::OK;
    if (attempt_->stream->Write(*request)) continue;
    if (grpc::Status status = Recover(); !status.ok()) return status;
  }
}

std::shared_ptr<const pb::IngestRequest> IngestStream::NextUnsent() {
  MutexLock lock(mutex_);
  return sent_ == pending_.size() ? nullptr : pending_[sent_++].request;
}

bool IngestStream::AwaitRoom(size_t bytes) {
  MutexLock lock(mutex_);
  while (true) {
    const bool full = pending_.size() >= options_.window_documents_max ||
                      (!pending_.empty() && pending_bytes_ + bytes > options_.window_bytes_max);
    if (!full) return true;
    if (broken_) return false;
    changed_.Wait(mutex_);
  }
}

bool IngestStream::AwaitAll() {
  MutexLock lock(mutex_);
  while (!pending_.empty() && !broken_) changed_.Wait(mutex_);
  return pending_.empty();
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
  if (sent_ == 0 || pending_.front().request->sequence() != response.sequence()) return false;
  acknowledgements_.push_back({pending_.front().tag, std::move(*response.mutable_result())});
  pending_bytes_ -= pending_.front().bytes;
  pending_.pop_front();
  --sent_;
  failures_ = 0;
  last_sign_ = steady_clock::now();
  changed_.NotifyAll();
  return true;
}

void IngestStream::WatchLoop() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    const auto due = pending_.empty() ? steady_clock::now() + options_.silence_max : last_sign_ + options_.silence_max;
    if (changed_.WaitUntil(mutex_, due)) continue;
    if (pending_.empty() || context_ == nullptr || steady_clock::now() < last_sign_ + options_.silence_max) continue;
    silent_ = true;
    context_->TryCancel();
    last_sign_ = steady_clock::now();  // the sender now sees the broken attempt
  }
}

}  // namespace retro::cli
