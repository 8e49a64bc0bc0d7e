// A unary call whose reply nobody reads: gRPC's own clients read it.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/rpc/message.h"

namespace retro {

// One thread. Once constructed the reply is on its way; cancelled at the end.
class UnreadCall {
 public:
  UnreadCall(const std::string& address, const std::string& method, const google::protobuf::Message& request)
      : stub_(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), FixedWindow())),
        call_(stub_.PrepareCall(&context_, method, &queue_)) {
    grpc::ByteBuffer bytes;
    SerializeMessage(request, bytes);
    call_->StartCall(nullptr);
    Wait();
    call_->WriteLast(bytes, {}, nullptr);
    Wait();
    call_->ReadInitialMetadata(nullptr);
    Wait();
  }
  ~UnreadCall() {
    context_.TryCancel();
    grpc::Status end;
    call_->Finish(&end, nullptr);
    Wait();
  }
  UnreadCall(const UnreadCall&) = delete;
  UnreadCall& operator=(const UnreadCall&) = delete;

 private:
  static grpc::ChannelArguments FixedWindow() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return arguments;
  }
  void Wait() {
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue_.Next(&tag, &ok) && ok);
  }

  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

}  // namespace retro
