#include "common/rpc/message.h"

#include <grpcpp/impl/codegen/proto_utils.h>

namespace retro {

bool ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  grpc::ByteBuffer reading(bytes);  // shares them
  return grpc::GenericDeserialize<grpc::ProtoBufferReader, google::protobuf::Message>(&reading, &message).ok();
}

void SerializeMessage(const google::protobuf::Message& message, grpc::ByteBuffer& bytes) {
  bool own_buffer = false;
  // Fails only for want of memory.
  grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(message, &bytes, &own_buffer);
}

}  // namespace retro
