// Calls to a retriever's admin service.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/message_json.h"
#include "retro/admin/v1/admin.grpc.pb.h"

namespace retro::cli {

namespace adminpb = ::retro::admin::v1;

template <typename Request, typename Response>
using AdminMethod = grpc::Status (adminpb::AdminService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

inline std::unique_ptr<adminpb::AdminService::Stub> ConnectAdmin(const CommonOptions& options) {
  return adminpb::AdminService::NewStub(options.retriever_channel);
}

// One call; the exit code. `response` is what came back, if that is kOk.
template <typename Request, typename Response>
int AskAdmin(const CommonOptions& options, const Console& console, const Request& request,
             AdminMethod<Request, Response> method, Response& response) {
  Call call(options.timeout_s);
  const grpc::Status status = ((*ConnectAdmin(options)).*method)(call.context(), request, &response);
  return status.ok() ? kOk : ReportFailure(console, RetrieverPeer(options), status);
}

// The same, and shows the response: with --json as one line, else by `print`.
template <typename Request, typename Response>
int AskAdminAndPrint(const CommonOptions& options, const Console& console, const Request& request,
                     AdminMethod<Request, Response> method, const std::function<void(const Response&)>& print) {
  Response response;
  if (const int code = AskAdmin(options, console, request, method, response); code != kOk) return code;
  if (options.json) {
    console.out << MessageToJson(response) << '\n';
  } else {
    print(response);
  }
  return kOk;
}

// Asks how the operation goes until it has ended; the exit code, after a line of error if it failed.
int WaitForOperation(const CommonOptions& options, const Console& console, const std::string& operation_id);

}  // namespace retro::cli
