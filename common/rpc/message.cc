#include "common/rpc/message.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <climits>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr int kDepthMax = 100;  // as protobuf's own
// An allocation: what the allocator adds, and the pointer to it in a list, which grows by doubling.
constexpr size_t kAllocationBytes = 32;
constexpr size_t kStringBytes = sizeof(std::string) + kAllocationBytes;
constexpr size_t kValueBytes = 32;      // a number, or what is kept of an unknown one, in a list that grows by doubling
constexpr size_t kMapEntryBytes = 128;  // a node with its key, and its place in the table
constexpr size_t kUnknownGroupBytes = 96;  // a set of unknown fields, and its place in another

// Reads a message's fields one by one and adds up what each becomes.
class WireScan {
 public:
  explicit WireScan(CodedInputStream& in) : in_(in) {}

  // The fields of a message of `type` (null: of an unknown group) up to the tag `end` (0: to the end of the input).
  bool ReadFields(const Descriptor* type, uint32_t end, int depth) {
    if (depth > kDepthMax) return false;
    while (const uint32_t tag = in_.ReadTag()) {
      if (is_too_much()) return false;
      if (tag == end) return true;
      if (!ReadField(type, tag, depth)) return false;
    }
    return end == 0 && in_.ConsumedEntireMessage();
  }

  size_t bytes() const { return bytes_; }
  // It goes no further then: a scan must not take long either.
  bool is_too_much() const { return bytes_ > kParsedBytesMax; }

 private:
  bool ReadField(const Descriptor* type, uint32_t tag, int depth) {
    const int number = WireFormatLite::GetTagFieldNumber(tag);
    if (number == 0) return false;
    uint64_t value = 0;
    uint32_t half = 0;
    switch (WireFormatLite::GetTagWireType(tag)) {
      case WireFormatLite::WIRETYPE_VARINT:
        bytes_ += kValueBytes;
        return in_.ReadVarint64(&value);
      case WireFormatLite::WIRETYPE_FIXED64:
        bytes_ += kValueBytes;
        return in_.ReadLittleEndian64(&value);
      case WireFormatLite::WIRETYPE_FIXED32:
        bytes_ += kValueBytes;
        return in_.ReadLittleEndian32(&half);
      case WireFormatLite::WIRETYPE_START_GROUP:
        bytes_ += kUnknownGroupBytes;
        return ReadFields(nullptr, WireFormatLite::MakeTag(number, WireFormatLite::WIRETYPE_END_GROUP), depth + 1);
      case WireFormatLite::WIRETYPE_LENGTH_DELIMITED:
        return ReadDelimited(type == nullptr ? nullptr : type->FindFieldByNumber(number), depth);
      default:
        return false;
    }
  }

  bool ReadDelimited(const FieldDescriptor* field, int depth) {
    uint32_t length = 0;
    if (!in_.ReadVarint32(&length) || length > INT_MAX) return false;
    const CodedInputStream::Limit limit = in_.PushLimit(static_cast<int>(length));
    bool right = true;
    if (field != nullptr && field->type() == FieldDescriptor::TYPE_MESSAGE) {
      bytes_ += kAllocationBytes + ObjectBytes(*field->message_type());
      right = ReadFields(field->message_type(), 0, depth + 1);
    } else if (field != nullptr && field->is_packable()) {
      right = ReadPacked(*field, length);
    } else {
      bytes_ += kStringBytes;
      right = in_.Skip(static_cast<int>(length));
    }
    in_.PopLimit(limit);
    return right;
  }

  bool ReadPacked(const FieldDescriptor& field, size_t length) {
    constexpr size_t kGrowth = 2;  // a list has room for up to twice its values
    size_t value_bytes = sizeof(int32_t);
    bytes_ += kAllocationBytes;
    switch (field.type()) {
      case FieldDescriptor::TYPE_FIXED32:
      case FieldDescriptor::TYPE_SFIXED32:
      case FieldDescriptor::TYPE_FLOAT:
      case FieldDescriptor::TYPE_FIXED64:
      case FieldDescriptor::TYPE_SFIXED64:
      case FieldDescriptor::TYPE_DOUBLE:
        bytes_ += length;
        return in_.Skip(static_cast<int>(length));
      case FieldDescriptor::TYPE_INT64:
      case FieldDescriptor::TYPE_UINT64:
      case FieldDescriptor::TYPE_SINT64:
        value_bytes = sizeof(int64_t);
        break;
      default:
        break;
    }
    for (uint64_t value = 0; in_.BytesUntilLimit() > 0 && !is_too_much(); bytes_ += kGrowth * value_bytes) {
      if (!in_.ReadVarint64(&value)) return false;
    }
    return true;
  }

  size_t ObjectBytes(const Descriptor& type) {
    if (type.options().map_entry()) {  // its prototype is no whole message
      const Descriptor* value = type.FindFieldByNumber(2)->message_type();
      return kMapEntryBytes + (value == nullptr ? 0 : kAllocationBytes + ObjectBytes(*value));
    }
    const auto [known, first] = object_bytes_.try_emplace(&type, 0);
    if (first) {
      known->second = google::protobuf::MessageFactory::generated_factory()->GetPrototype(&type)->SpaceUsedLong();
    }
    return known->second;
  }

  CodedInputStream& in_;
  size_t bytes_ = 0;
  absl::flat_hash_map<const Descriptor*, size_t> object_bytes_;
};

}  // namespace

std::optional<size_t> ParsedBytes(const grpc::ByteBuffer& bytes, const google::protobuf::Message& message) {
  grpc::ByteBuffer reading(bytes);  // shares them
  grpc::ProtoBufferReader reader(&reading);
  CodedInputStream in(&reader);
  WireScan scan(in);
  if (!reader.status().ok()) return std::nullopt;
  if (!scan.ReadFields(message.GetDescriptor(), 0, 0) && !scan.is_too_much()) return std::nullopt;
  return scan.bytes();
}

absl::Status ParseRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message& message,
                          const std::function<absl::Status(size_t bytes)>& hold) {
  const std::optional<size_t> parsed = ParsedBytes(bytes, message);
  if (parsed.has_value() && *parsed > kParsedBytesMax) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidField,
                 StrCat("the request has so many fields that it would take more than ", kParsedBytesMax,
                        " bytes of memory: send less at once"));
  }
  if (parsed.has_value() && *parsed > bytes.Length()) RETRO_RETURN_IF_ERROR(hold(*parsed - bytes.Length()));
  if (parsed.has_value() && ParseMessage(bytes, message)) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidField,
               "the request does not parse: is it of the right type, and every text in it UTF-8?");
}

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
