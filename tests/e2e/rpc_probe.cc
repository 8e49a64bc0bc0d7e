// Calls any method with the bytes of a message, for tests that must send what `retro` would not:
//   rpc_probe ADDRESS /package.Service/Method < message
// Prints the status as "CODE message" and then each response as one line of hexadecimal digits.
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "common/base/hash.h"

namespace retro {
namespace {

constexpr std::chrono::seconds kAnswerWait{60};

// Waits for the one operation that is under way; false if it failed.
bool Await(grpc::CompletionQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue.Next(&tag, &ok) && ok;
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

int Main(const std::string& address, const std::string& method) {
  const std::string message{std::istreambuf_iterator<char>(std::cin), {}};
  grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAnswerWait);
  grpc::CompletionQueue queue;
  const std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  std::vector<std::string> responses;
  if (Await(queue)) {
    const grpc::Slice slice(message);
    call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
    Await(queue);
    for (grpc::ByteBuffer response;;) {
      call->Read(&response, nullptr);
      if (!Await(queue)) break;
      responses.push_back(BytesOf(response));
    }
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  Await(queue);
  std::cout << status.error_code() << ' ' << status.error_message() << '\n';
  for (const std::string& response : responses) std::cout << HexEncode(response) << '\n';
  return 0;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: rpc_probe ADDRESS /package.Service/Method < message\n";
    return 2;
  }
  return retro::Main(argv[1], argv[2]);
}
