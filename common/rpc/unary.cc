#include "common/rpc/unary.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/strings.h"
#include "common/rpc/log.h"
#include "common/rpc/status.h"
#include "common/rpc/trace.h"

namespace retro {
namespace {

constexpr size_t kRequestIdBytesMax = 128;
constexpr int kWaitShare = 2;  // of a call's time, the part that it may wait
constexpr size_t kAuditedRequestBytesMax = 1024;
constexpr size_t kArrivalBytesMax = 4096;  // a larger request may ask for much: a worker's

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
  const auto id = context.client_metadata().find("x-request-id");
  // Sent on, and written to logs: gRPC ends a process that sends other bytes than these.
  const bool usable = id != context.client_metadata().end() && !id->second.empty() &&
                      id->second.size() <= kRequestIdBytesMax &&
                      std::all_of(id->second.begin(), id->second.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  call.request_id = usable ? std::string(id->second.data(), id->second.size()) : NewRequestId();
  return call;
}

CallRecord::CallRecord(Metrics& metrics, std::string method, const CallContext& call)
    : metrics_(metrics),
      method_(std::move(method)),
      request_id_(call.request_id),
      traceparent_(call.traceparent),
      parent_span_(call.parent_span),
      caller_(call.caller),
      start_(std::chrono::steady_clock::now()) {}

void CallRecord::NoteRequest(const google::protobuf::Message& request) {
  if (IsAudited(method_)) audited_request_ = request.ShortDebugString().substr(0, kAuditedRequestBytesMax);
}

grpc::Status CallRecord::Finish(const absl::Status& status) const {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::string code = absl::StatusCodeToString(status.code());
  metrics_.CountRequest(method_, code, seconds);
  const bool alarming = status.code() == absl::StatusCode::kInternal || status.code() == absl::StatusCode::kDataLoss;
  const auto level = alarming ? spdlog::level::err : spdlog::level::debug;
  if (spdlog::should_log(level)) {
    LogEvent(level, "request",
             {{"method", method_},
              {"code", code},
              {"seconds", fmt::format("{:.4f}", seconds)},
              {"request_id", request_id_},
              {"trace_id", std::string(TraceIdOf(traceparent_))},
              {"span_id", std::string(SpanIdOf(traceparent_))},
              {"parent_span_id", parent_span_},
              {"message", std::string(status.message())}});
  }
  if (IsAudited(method_)) {
    LogAudit({{"method", method_},
              {"key", caller_ == nullptr ? "" : caller_->key},
              {"code", code},
              {"request_id", request_id_},
              {"request", audited_request_}});
  }
  return ToGrpcStatus(status);
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
  void Answer(const Work& work) { End(TryAnswer(work)); }
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
    delete this;
  }

 private:
  absl::Status TryAnswer(const Work& work) {
    runner_.last_wait_ = Clock::now() - arrival_;
    RETRO_RETURN_IF_ERROR(context_.Check());
    const size_t held_before = bytes_held_;
    RETRO_ASSIGN_OR_RETURN(const MessagePtr reply, work(request_, context_, record_));
    const size_t held = bytes_held_ - held_before;  // what the work took for it
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
  std::atomic<size_t> bytes_held_ = 0;
  PeerWatch::Entry sent_;  // the reply
};

bool UnaryRunner::WouldBeLate(const CallContext& call) const {
  return call.deadline - Clock::now() < kWaitShare * last_wait_.load() && pool_.queued() > 0;
}

absl::Status UnaryRunner::MemoryFullError() {
  return QueueFullError("the memory for requests and replies", kRetryAfter);
}

absl::Status UnaryRunner::UnreadableError() {
  return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidField,
               "the request does not parse: is it of the right type, and every text in it UTF-8?");
}

grpc::ServerUnaryReactor* UnaryRunner::Start(grpc::CallbackServerContext* context, std::string method,
                                             const grpc::ByteBuffer& request, grpc::ByteBuffer& reply, RunOn run_on,
                                             Work work) {
  Call* call = new Call(*this, *context, std::move(method), request, reply);  // deleted by OnDone
  if (!call->admitted().ok()) {
    call->End(call->admitted());
  } else if (!call->TryHold(request.Length())) {
    call->End(MemoryFullError());
  } else if (WouldBeLate(call->context())) {
    const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(last_wait_.load());
    call->End(QueueFullError("the queue of requests, for so short a deadline,", wait));
  } else if (!(run_on == RunOn::kArrival && request.Length() <= kArrivalBytesMax &&
               RunHere([call, &work] { call->Answer(work); }, call->context().key())) &&
             !pool_.Submit([call, work = std::move(work)] { call->Answer(work); }, call->context().key())) {
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

grpc::ServerUnaryReactor* UnaryRunner::Refuse(grpc::CallbackServerContext* context, std::string method,
                                              std::string_view what) {
  CallContext call = MakeCallContext(*context);
  absl::Status status = Admit(access(), *context, method, call);
  if (status.ok()) status = Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported, what);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(CallRecord(metrics_, std::move(method), call).Finish(status));
  return reactor;
}

}  // namespace retro
