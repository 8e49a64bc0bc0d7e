// What tests of the doors of all three programs share: files of API keys, and calls of every method that a program has.
#pragma once

#include <google/protobuf/descriptor.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"

namespace retro {

// One of a file of keys; `rest` are its other members.
inline std::string KeyEntry(const std::string& name, const std::string& key, const std::string& rest) {
  return StrCat(R"({"name":")", name, R"(","sha256":")", HexEncode(Sha256Bytes(key)), R"(",)", rest, "}");
}

inline std::string KeyFile(const std::vector<std::string>& entries) {
  std::string list;
  for (const std::string& entry : entries) list += (list.empty() ? "" : ",") + entry;
  return StrCat(R"({"keys":[)", list, "]}");
}

// What every method of the services in these files says to an empty message, by its full name.
inline std::map<std::string, absl::Status> CallEveryMethod(
    const std::shared_ptr<grpc::Channel>& channel,
    std::initializer_list<const google::protobuf::FileDescriptor*> files) {
  std::map<std::string, absl::Status> answers;
  for (const google::protobuf::FileDescriptor* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        const auto* method = file->service(s)->method(m);
        const std::string path = StrCat("/", file->service(s)->full_name(), "/", method->name());
        grpc::ClientContext context;
        const grpc::Slice empty(std::string{});
        const grpc::ByteBuffer request(&empty, 1);
        grpc::ByteBuffer response;
        answers[method->full_name()] =
            FromGrpcStatus(grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
                channel.get(), grpc::internal::RpcMethod(path.c_str(), grpc::internal::RpcMethod::NORMAL_RPC), &context,
                request, &response));
      }
    }
  }
  return answers;
}

}  // namespace retro
