#include "common/rpc/unary.h"

#include <fmt/format.h>

#include <random>

#include "common/rpc/log.h"
#include "common/rpc/status.h"

namespace retro {
namespace {

constexpr size_t kRequestIdBytesMax = 128;
constexpr std::chrono::milliseconds kRetryAfter{200};

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
  const auto id = context.client_metadata().find("x-request-id");
  const bool usable =
      id != context.client_metadata().end() && !id->second.empty() && id->second.size() <= kRequestIdBytesMax;
  call.request_id = usable ? std::string(id->second.data(), id->second.size()) : NewRequestId();
  return call;
}

CallRecord::CallRecord(Metrics& metrics, std::string method, std::string request_id)
    : metrics_(metrics),
      method_(std::move(method)),
      request_id_(std::move(request_id)),
      start_(std::chrono::steady_clock::now()) {}

grpc::Status CallRecord::Finish(const absl::Status& status) const {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const std::string code = absl::StatusCodeToString(status.code());
  metrics_.CountRequest(method_, code, seconds);
  const bool alarming = status.code() == absl::StatusCode::kInternal || status.code() == absl::StatusCode::kDataLoss;
  LogEvent(alarming ? spdlog::level::err : spdlog::level::debug, "request",
           {{"method", method_},
            {"code", code},
            {"seconds", fmt::format("{:.4f}", seconds)},
            {"request_id", request_id_},
            {"message", std::string(status.message())}});
  return ToGrpcStatus(status);
}

grpc::ServerUnaryReactor* UnaryRunner::Run(grpc::CallbackServerContext* context, std::string method,
                                           std::function<absl::Status(const CallContext&)> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto call = std::make_shared<CallContext>(MakeCallContext(*context));
  auto record = std::make_shared<CallRecord>(metrics_, std::move(method), call->request_id);
  const bool taken = pool_.Submit([reactor, call, record, work = std::move(work)] {
    absl::Status status = call->Check();
    if (status.ok()) status = work(*call);
    reactor->Finish(record->Finish(status));
  });
  if (!taken) reactor->Finish(record->Finish(QueueFullError("the queue of requests", kRetryAfter)));
  return reactor;
}

}  // namespace retro
