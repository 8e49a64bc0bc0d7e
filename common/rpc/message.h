// Messages to and from the bytes that gRPC carries. Services that take bytes parse them themselves: gRPC would end a
// call whose message does not parse, as for text that is not UTF-8, with a bare status, and a stream in silence. It
// would also parse before anybody has asked who calls, and a message can become fifty times as large as its bytes: one
// of empty messages is an object of a hundred bytes for every two.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <functional>
#include <optional>

#include "absl/status/status.h"

namespace retro {

// Of one request, beside its bytes.
inline constexpr size_t kParsedBytesMax = size_t{128} << 20;

// What a message of the type of `message` takes in memory once it is parsed, but for the bytes of its texts: its
// objects, by a scan of the wire format that builds none of them. It is estimated from above but for the room that
// short lists have to grow in. Nothing if the bytes are no message. Of more than kParsedBytesMax it is only said that
// it is more.
std::optional<size_t> ParsedBytes(const grpc::ByteBuffer& bytes, const google::protobuf::Message& message);

// Parses what a caller has sent. `hold` is asked before for that of ParsedBytes which is more than the bytes
// themselves, nothing with most; what it answers is returned if that is not OK. INVALID_ARGUMENT if the bytes are no
// such message, or one of more than kParsedBytesMax.
absl::Status ParseRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message& message,
                          const std::function<absl::Status(size_t bytes)>& hold);

// Parses what we can trust. False if the bytes are no such message.
bool ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);
// The message must be within protobuf's 2 GiB.
void SerializeMessage(const google::protobuf::Message& message, grpc::ByteBuffer& bytes);

}  // namespace retro
