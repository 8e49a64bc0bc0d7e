#include "cli/admin_call.h"

#include <chrono>
#include <thread>

#include "cli/interrupt.h"

namespace retro::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAskEvery{200};
// What a router does itself, it alone knows of; behind a proxy another one may be asked.
constexpr std::chrono::seconds kElsewhereMax{10};

}  // namespace

int WaitForOperation(const CommonOptions& options, const Console& console, const std::string& operation_id) {
  adminpb::GetOperationRequest request;
  request.set_operation_id(operation_id);
  Clock::time_point found = Clock::now();
  while (!Interrupted()) {
    adminpb::GetOperationResponse response;
    Call call(options.timeout_s);
    const grpc::Status status = ConnectAdmin(options)->GetOperation(call.context(), request, &response);
    const bool elsewhere = status.error_code() == grpc::StatusCode::NOT_FOUND && Clock::now() - found < kElsewhereMax;
    if (!status.ok() && !elsewhere) return ReportFailure(console, RetrieverPeer(options), status);
    if (status.ok()) found = Clock::now();
    if (response.operation().state() == adminpb::OPERATION_STATE_SUCCEEDED) return kOk;
    if (response.operation().state() == adminpb::OPERATION_STATE_FAILED) {
      console.Error(response.operation().message());
      return kFailed;
    }
    std::this_thread::sleep_for(kAskEvery);
  }
  console.Error("interrupted; the server goes on with it");
  return kInterrupted;
}

}  // namespace retro::cli
