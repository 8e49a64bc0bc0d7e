#include "cli/admin_call.h"

#include <chrono>
#include <thread>

#include "cli/interrupt.h"

namespace retro::cli {
namespace {

constexpr std::chrono::milliseconds kAskEvery{200};

}  // namespace

int WaitForOperation(const CommonOptions& options, const Console& console, const std::string& operation_id) {
  adminpb::GetOperationRequest request;
  request.set_operation_id(operation_id);
  while (!Interrupted()) {
    adminpb::GetOperationResponse response;
    const int code = AskAdmin<adminpb::GetOperationRequest, adminpb::GetOperationResponse>(
        options, console, request, &adminpb::AdminService::Stub::GetOperation, response);
    if (code != kOk) return code;
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
