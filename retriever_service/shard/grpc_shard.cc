#include "retriever_service/shard/grpc_shard.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "common/rpc/status.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

// Kept back from the caller's deadline, so that an answer still finds it.
constexpr std::chrono::milliseconds kDeadlineMargin{20};
// How often a waiting call looks whether its caller is still there.
constexpr std::chrono::milliseconds kCheckEvery{20};

enum class Effect { kRead, kChange };

void Prepare(const CallContext& call, grpc::ClientContext& context) {
  if (call.deadline != Clock::time_point::max()) {
    const auto left = std::max(call.deadline - Clock::now() - kDeadlineMargin, Clock::duration::zero());
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
  }
  if (!call.request_id.empty()) context.AddMetadata("x-request-id", call.request_id);
  if (!call.traceparent.empty()) context.AddMetadata("traceparent", call.traceparent);
}

// Errors of the shard keep their reasons; those of the way there get one.
absl::Status ToStatus(const grpc::Status& status, Effect effect, const std::string& address) {
  absl::Status error = FromGrpcStatus(status);
  if (error.ok() || ReasonOf(error).has_value()) return error;
  const bool outcome_unknown = effect == Effect::kChange && (error.code() == absl::StatusCode::kUnavailable ||
                                                             error.code() == absl::StatusCode::kDeadlineExceeded ||
                                                             error.code() == absl::StatusCode::kCancelled);
  if (outcome_unknown) {
    return Error(
        error.code(), Reason::kWriteOutcomeUnknown,
        StrCat("the shard at ", address, " did not say whether it made the change, repeat it: ", MessageOf(error)));
  }
  if (error.code() == absl::StatusCode::kUnavailable) {
    return Error(error.code(), Reason::kShardUnavailable,
                 StrCat("the shard at ", address, " does not answer: is it running? (", MessageOf(error), ")"));
  }
  const bool caller_gone =
      error.code() == absl::StatusCode::kDeadlineExceeded || error.code() == absl::StatusCode::kCancelled;
  SetReason(error, caller_gone ? Reason::kCallerGone : Reason::kInternal);
  return error;
}

// Begins a call by `start` and waits for its end; cancels it, and still waits, if the caller leaves.
template <typename Response>
absl::StatusOr<Response> Call(
    const CallContext& call, Effect effect, const std::string& address,
    const std::function<void(grpc::ClientContext*, Response*, std::function<void(grpc::Status)>)>& start) {
  RETRO_RETURN_IF_ERROR(call.Check());
  grpc::ClientContext context;
  Prepare(call, context);
  Response response;
  Mutex mutex;
  CondVar ended;
  std::optional<grpc::Status> status;
  start(&context, &response, [&](grpc::Status answer) {
    const MutexLock lock(mutex);
    status = std::move(answer);
    ended.NotifyAll();
  });
  {
    const MutexLock lock(mutex);
    while (!status.has_value()) {
      ended.WaitUntil(mutex, Clock::now() + kCheckEvery);
      if (!status.has_value() && call.cancelled && call.cancelled()) context.TryCancel();
    }
  }
  RETRO_RETURN_IF_ERROR(ToStatus(*status, effect, address));
  return response;
}

}  // namespace

GrpcShard::GrpcShard(const std::shared_ptr<grpc::Channel>& channel, std::string address)
    : address_(std::move(address)), stub_(shardpb::ShardService::NewStub(channel)) {}

absl::StatusOr<shardpb::SearchResponse> GrpcShard::Search(const shardpb::SearchRequest& request,
                                                          const CallContext& context) {
  return Call<shardpb::SearchResponse>(context, Effect::kRead, address_, [&](auto* call, auto* response, auto done) {
    stub_->async()->Search(call, &request, response, std::move(done));
  });
}

absl::StatusOr<shardpb::WriteResponse> GrpcShard::Write(const shardpb::WriteRequest& request,
                                                        const CallContext& context) {
  return Call<shardpb::WriteResponse>(context, Effect::kChange, address_, [&](auto* call, auto* response, auto done) {
    stub_->async()->Write(call, &request, response, std::move(done));
  });
}

absl::StatusOr<shardpb::DeleteResponse> GrpcShard::Delete(const shardpb::DeleteRequest& request,
                                                          const CallContext& context) {
  return Call<shardpb::DeleteResponse>(context, Effect::kChange, address_, [&](auto* call, auto* response, auto done) {
    stub_->async()->Delete(call, &request, response, std::move(done));
  });
}

absl::StatusOr<shardpb::GetDocumentResponse> GrpcShard::GetDocument(const shardpb::GetDocumentRequest& request,
                                                                    const CallContext& context) {
  return Call<shardpb::GetDocumentResponse>(context, Effect::kRead, address_,
                                            [&](auto* call, auto* response, auto done) {
                                              stub_->async()->GetDocument(call, &request, response, std::move(done));
                                            });
}

absl::StatusOr<shardpb::GetChunksResponse> GrpcShard::GetChunks(const shardpb::GetChunksRequest& request,
                                                                const CallContext& context) {
  return Call<shardpb::GetChunksResponse>(context, Effect::kRead, address_, [&](auto* call, auto* response, auto done) {
    stub_->async()->GetChunks(call, &request, response, std::move(done));
  });
}

absl::StatusOr<shardpb::ListDocumentsResponse> GrpcShard::ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                                        const CallContext& context) {
  return Call<shardpb::ListDocumentsResponse>(
      context, Effect::kRead, address_, [&](auto* call, auto* response, auto done) {
        stub_->async()->ListDocuments(call, &request, response, std::move(done));
      });
}

absl::StatusOr<shardpb::StatsResponse> GrpcShard::Stats(const shardpb::StatsRequest& request,
                                                        const CallContext& context) {
  return Call<shardpb::StatsResponse>(context, Effect::kRead, address_, [&](auto* call, auto* response, auto done) {
    stub_->async()->Stats(call, &request, response, std::move(done));
  });
}

absl::StatusOr<shardpb::GetShardInfoResponse> GrpcShard::GetShardInfo(const shardpb::GetShardInfoRequest& request,
                                                                      const CallContext& context) {
  return Call<shardpb::GetShardInfoResponse>(context, Effect::kRead, address_,
                                             [&](auto* call, auto* response, auto done) {
                                               stub_->async()->GetShardInfo(call, &request, response, std::move(done));
                                             });
}

}  // namespace retro
