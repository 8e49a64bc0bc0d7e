// Messages to and from the bytes that gRPC carries. Services that take bytes parse them themselves: gRPC would end a
// call whose message does not parse, as for text that is not UTF-8, with a bare status, and a stream in silence.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

namespace retro {

// False if the bytes are no such message.
bool ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);
// The message must be within protobuf's 2 GiB.
void SerializeMessage(const google::protobuf::Message& message, grpc::ByteBuffer& bytes);

}  // namespace retro
