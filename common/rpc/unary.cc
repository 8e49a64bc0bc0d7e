#include "common/rpc/unary.h"

#include <fmt/format.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>

#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "common/rpc/header.h"
#include "common/rpc/log.h"
#include "common/rpc/status.h"
#include "common/rpc/trace.h"

namespace retro {
namespace {

constexpr int kWaitShare = 2;  // of a call's time, the part that it may wait
constexpr size_t kAuditedRequestBytesMax = 1024;
constexpr double kAuditedRefusalsPerSecond = 10;   // and at once
constexpr size_t kArrivalBytesMax = 4096;          // a larger request may ask for much: a worker's
constexpr size_t kQueuedMessageBytesMax = 16'384;  // of a message that waits, beside its bytes

// A bucket of audited refusals for each key, and one for whoever has none: strangers must not fill the log's disk.
class RefusalLimit {
 public:
  // Whether one more is logged; then `left_out` is how many of the key were not since the last that was.
  bool Take(const std::string& key, std::chrono::steady_clock::time_point now, int64_t* left_out) {
    const MutexLock lock(mutex_);
    const auto [place, first] = buckets_.try_emplace(key, Bucket{kAuditedRefusalsPerSecond, now, 0});
    Bucket& bucket = place->second;
    const double filled = std::chrono::duration<double>(now - bucket.filled).count() * kAuditedRefusalsPerSecond;
    bucket.left = std::min(kAuditedRefusalsPerSecond, bucket.left + std::max(0.0, filled));
    bucket.filled = std::max(bucket.filled, now);
    if (bucket.left < 1) {
      ++bucket.left_out;
      return false;
    }
    bucket.left -= 1;
    *left_out = std::exchange(bucket.left_out, 0);
    return true;
  }

 private:
  struct Bucket {
    double left;
    std::chrono::steady_clock::time_point filled;
    int64_t left_out;
  };
  Mutex mutex_;
  std::map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mutex_);  // by the names of keys
};

// The beginning of a message as text. What nobody knows is not shown: it would be parsed on suspicion, and printed
// whole.
std::string CutToText(const google::protobuf::Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  printer.SetHideUnknownFields(true);
  printer.SetTruncateStringFieldLongerThan(kAuditedRequestBytesMax);
  std::string text(kAuditedRequestBytesMax, '\0');
  google::protobuf::io::ArrayOutputStream out(text.data(), static_cast<int>(text.size()));
  printer.Print(message, &out);  // false once it is full
  text.resize(static_cast<size_t>(out.ByteCount()));
  return text;
}

// For its key, or for the lack of one.
bool IsRefusal(const absl::Status& status) {
  const std::optional<Reason> reason = ReasonOf(status);
  return reason == Reason::kUnauthenticated || reason == Reason::kPermissionDenied || reason == Reason::kKeyLimit;
}

std::string NewRequestId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}", random());
}

}  // namespace

CallContext MakeCallContext(const grpc::CallbackServerContext& context) {
  CallContext call;
  const auto now = std::chrono::system_clock::now();
  const auto deadline = context.deadline();
  // A call without a deadline has one so far away that the sum below would overflow.
  if (deadline < now + std::chrono::hours(24 * 365))
    call.deadline = std::chrono::steady_clock::now() + (deadline - now);
  call.cancelled = [&context] { return context.IsCancelled(); };
  const auto parent = context.client_metadata().find(kTraceparent);
  const bool traced = parent != context.client_metadata().end();
  const Trace trace =
      ContinueTrace(traced ? std::string_view(parent->second.data(), parent->second.size()) : std::string_view());
  call.traceparent = trace.Header();
  call.parent_span = trace.parent_id;
  const auto id = context.client_metadata().find(kRequestIdHeader);
  const std::string_view given = id == context.client_metadata().end()
                                     ? std::string_view()
                                     : std::string_view(id->second.data(), id->second.size());
  call.request_id = IsRequestId(given) ? std::string(given) : NewRequestId();
  return call;
}

CallRecord::CallRecord(Metrics& metrics, std::string method, const CallContext& call)
    : metrics_(metrics),
      method_(std::move(method)),
      request_id_(call.request_id),
      traceparent_(call.traceparent),
      parent_span_(call.parent_span),
      caller_(call.caller),
      peer_(call.peer),
      certificate_(call.certificate),
      start_(std::chrono::steady_clock::now()) {}

void CallRecord::NoteRequest(const google::protobuf::Message& request) {
  if (IsAudited(method_)) audited_request_ = CutToText(request);
}

grpc::Status CallRecord::Finish(const absl::Status& given) const {
  const absl::Status status = WithReason(given);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::string code = absl::StatusCodeToString(status.code());
  metrics_.CountRequest(method_, code, seconds);
  const bool alarming = status.code() == absl::StatusCode::kInternal || status.code() == absl::StatusCode::kDataLoss;
  const auto level = alarming ? spdlog::level::err : spdlog::level::debug;
  if (spdlog::should_log(level)) {
    LogEvent(level, "request",
             {{"method", method_},
              {"key", caller_ == nullptr ? "" : caller_->key},
              {"code", code},
              {"seconds", fmt::format("{:.4f}", seconds)},
              {"request_id", request_id_},
              {"trace_id", std::string(TraceIdOf(traceparent_))},
              {"span_id", std::string(SpanIdOf(traceparent_))},
              {"parent_span_id", parent_span_},
              {"message", std::string(status.message())}});
  }
  if (IsAudited(method_) || (IsRefusal(status) && IsAuditedIfRefused(method_))) Audit(status, code);
  return ToGrpcStatus(status);
}

void CallRecord::Audit(const absl::Status& status, const std::string& code) const {
  static RefusalLimit& refusals = *new RefusalLimit;  // for threads that end after main()
  const std::string key = caller_ == nullptr ? "" : caller_->key;
  int64_t left_out = 0;
  if (IsRefusal(status) && !refusals.Take(key, start_, &left_out)) return;
  LogAudit({{"method", method_},
            {"key", key},
            {"peer", peer_},
            {"certificate", certificate_},
            {"code", code},
            {"request_id", request_id_},
            {"left_out", std::to_string(left_out)},
            {"request", audited_request_}});
}

// One call, from its arrival until gRPC has sent its reply; deletes itself then.
class UnaryRunner::Call : public grpc::ServerUnaryReactor {
 public:
  Call(UnaryRunner& runner, const grpc::CallbackServerContext& context, std::string method,
       const grpc::ByteBuffer& request, grpc::ByteBuffer& reply)
      : runner_(runner),
        grpc_context_(context),
        context_(MakeCallContext(context)),
        admitted_(Admit(runner.options_.access.get(), context, method, context_)),
        record_(runner.metrics_, std::move(method), context_),
        request_(request),
        reply_(reply) {
    context_.hold = [this](size_t bytes) { return TryHold(bytes); };
  }

  bool TryHold(size_t bytes) {
    if (!runner_.budget_->TryAcquire(bytes, context_.key())) return false;
    bytes_held_ += bytes;
    return true;
  }

  void GiveBack(size_t bytes) {
    runner_.budget_->Release(bytes, context_.key());
    bytes_held_ -= bytes;
  }

  const absl::Status& admitted() const { return admitted_; }
  const CallContext& context() const { return context_; }
  // On the thread that brought the call, if Answer is not to do it.
  absl::Status Parse(const Steps& steps) {
    is_parsed_ = true;
    return steps.parse(request_, context_, record_);
  }
  // If the message is large: a queue is of what has come, not of what that becomes.
  void ForgetIfLarge(const Steps& steps) {
    const size_t taken = bytes_held_ - request_.Length();
    if (taken <= kQueuedMessageBytesMax) return;
    steps.forget();
    GiveBack(taken);
    is_parsed_ = false;
  }
  // To a worker; false, and it is not done, if there is no room.
  bool Submit(Steps steps) {
    return runner_.pool_.Submit([this, steps = std::move(steps)] { Answer(steps); }, context_.key(), &ahead_);
  }
  void Answer(const Steps& steps) { End(TryAnswer(steps)); }
  void End(const absl::Status& status) {
    sent_ = runner_.peers_->Begin(grpc_context_);
    const grpc::Status answer = record_.Finish(status);
    HandOver(this);
    Finish(answer);  // may delete this
  }

  void OnDone() override {
    TakeOver(this);
    runner_.peers_->End(sent_);
    runner_.budget_->Release(bytes_held_, context_.key());
    HandOver(&runner_);
    delete this;
  }

 private:
  absl::Status TryAnswer(const Steps& steps) {
    const Clock::duration waited = Clock::now() - arrival_;
    runner_.NoteWait(context_.key(), waited, ahead_);
    runner_.wait_.Observe(std::chrono::duration<double>(waited).count());
    RETRO_RETURN_IF_ERROR(context_.Check());
    if (!is_parsed_) RETRO_RETURN_IF_ERROR(Parse(steps));
    RETRO_ASSIGN_OR_RETURN(const MessagePtr reply, steps.work(context_));
    const size_t held = bytes_held_ - request_.Length();  // what parsing and the work took
    const size_t bytes = reply->ByteSizeLong();
    if (bytes > runner_.options_.reply_bytes_max) {
      return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidField,
                   StrCat("the reply would have ", bytes, " bytes, and at most ", runner_.options_.reply_bytes_max,
                          " are sent: ask for less at once"));
    }
    if (bytes > held) RETRO_RETURN_IF_ERROR(context_.Hold(bytes - held));
    SerializeMessage(*reply, reply_);
    if (held > bytes) GiveBack(held - bytes);  // of the parts, which are joined: a slow reader keeps the reply alone
    return absl::OkStatus();
  }

  UnaryRunner& runner_;
  const grpc::CallbackServerContext& grpc_context_;
  CallContext context_;
  const absl::Status admitted_;
  CallRecord record_;
  const grpc::ByteBuffer& request_;  // both are gRPC's, until OnDone
  grpc::ByteBuffer& reply_;
  const Clock::time_point arrival_ = Clock::now();
  size_t ahead_ = 0;  // of its key, when it was queued
  bool is_parsed_ = false;
  std::atomic<size_t> bytes_held_ = 0;
  PeerWatch::Entry sent_;  // the reply
};

UnaryRunner::Clock::duration UnaryRunner::ExpectedWait(const std::string& key) const {
  Wait last;
  {
    const MutexLock lock(waits_mutex_);
    const auto known = last_waits_.find(key);
    if (known == last_waits_.end()) return Clock::duration::zero();
    last = known->second;
    if (Clock::now() - last.ended > kWaitShare * last.time) return Clock::duration::zero();
  }
  const size_t ahead = pool_.queued(key);  // now: the workers want the pool's lock too
  if (ahead == 0) return Clock::duration::zero();
  if (ahead >= last.ahead) return last.time;
  return last.time * static_cast<Clock::rep>(ahead + 1) / static_cast<Clock::rep>(last.ahead + 1);
}

void UnaryRunner::NoteWait(const std::string& key, Clock::duration time, size_t ahead) {
  const MutexLock lock(waits_mutex_);
  last_waits_[key] = {.time = time, .ahead = ahead, .ended = Clock::now()};
}

void UnaryRunner::Watch(const std::string& queue) const {
  prometheus::Gauge& waiting =
      metrics_.Gauge("retro_requests_waiting", "Requests that wait for a worker, by queue.", {{"queue", queue}});
  metrics_.BeforeScrape([this, &waiting] { waiting.Set(static_cast<double>(pool_.queued())); });
  if (!own_budget_) return;
  prometheus::Gauge& held = metrics_.Gauge(
      "retro_request_bytes", "Bytes of requests and replies in memory, of --request-bytes-max.", {{"queue", queue}});
  metrics_.BeforeScrape([this, &held] { held.Set(static_cast<double>(budget_->bytes())); });
}

absl::Status UnaryRunner::MemoryFullError() {
  return QueueFullError("the memory for requests and replies", kRetryAfter);
}

grpc::ServerUnaryReactor* UnaryRunner::Start(grpc::CallbackServerContext* context, std::string method,
                                             const grpc::ByteBuffer& request, grpc::ByteBuffer& reply, Steps steps) {
  Call* call = new Call(*this, *context, std::move(method), request, reply);  // deleted by OnDone
  absl::Status status = call->admitted();
  if (status.ok() && !call->TryHold(request.Length())) status = MemoryFullError();
  if (status.ok()) {
    // A call that would spend most of its time waiting would be worked on for nobody, and so would all of its key that
    // come after it, each as late as the one before.
    const Clock::duration wait = ExpectedWait(call->context().key());
    if (call->context().deadline - Clock::now() < kWaitShare * wait) {
      status = QueueFullError("the queue of requests, for so short a deadline,",
                              std::chrono::duration_cast<std::chrono::milliseconds>(wait));
    }
  }
  const bool may_be_short = steps.is_short != nullptr && request.Length() <= kArrivalBytesMax;
  if (status.ok() && may_be_short) {
    status = call->Parse(steps);
    const auto answer = [call, &steps] { call->Answer(steps); };
    if (status.ok() && steps.is_short() && RunHere(answer, call->context().key())) return call;
    if (status.ok()) call->ForgetIfLarge(steps);
  }
  if (!status.ok()) {
    call->End(status);
  } else if (!call->Submit(std::move(steps))) {
    call->End(QueueFullError("the queue of requests", kRetryAfter));
  }
  return call;
}

// gRPC has few threads that take in all that arrives, for every server and client of the process: two on a small
// machine. So at most one of them works.
bool UnaryRunner::RunHere(const std::function<void()>& work, const std::string& key) {
  static std::atomic<bool> one_works = false;
  if (one_works.exchange(true)) return false;
  const bool ran = pool_.RunHere(work, key);
  one_works = false;
  return ran;
}

}  // namespace retro
