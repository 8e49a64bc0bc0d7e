// Any bytes as messages of every kind that a service parses for callers: the first byte says which. What parsing takes
// is known before to a factor of two, whatever the bytes are.
#include <memory>
#include <vector>

#include "common/rpc/message.h"
#include "retro/admin/v1/admin.pb.h"
#include "retro/generator/v1/generator.pb.h"
#include "retro/retriever/v1/retriever.pb.h"
#include "retro/shard/v1/shard.pb.h"
#include "tests/fuzz/fuzz.h"

namespace retro {
namespace {

const std::vector<const google::protobuf::Message*>& Kinds() {
  static const std::vector<const google::protobuf::Message*> kinds = {
      &retriever::v1::SearchRequest::default_instance(),
      &retriever::v1::UpsertDocumentsRequest::default_instance(),
      &retriever::v1::IngestRequest::default_instance(),
      &retriever::v1::EmbedRequest::default_instance(),
      &retriever::v1::DeleteDocumentsRequest::default_instance(),
      &retriever::v1::ListDocumentsRequest::default_instance(),
      &shard::v1::SearchRequest::default_instance(),
      &shard::v1::WriteRequest::default_instance(),
      &shard::v1::DeleteRequest::default_instance(),
      &shard::v1::PullChangesRequest::default_instance(),
      &generator::v1::GenerateRequest::default_instance(),
      &generator::v1::ScoreRequest::default_instance(),
      &admin::v1::RestoreSnapshotRequest::default_instance(),
      &admin::v1::PromoteRequest::default_instance()};
  return kinds;
}

std::string Seed(char kind, const google::protobuf::Message& message) { return kind + message.SerializeAsString(); }

}  // namespace

std::vector<std::string> FuzzSeeds() {
  retriever::v1::SearchRequest search;
  search.add_queries()->set_text("text");
  search.add_queries()->mutable_vector()->add_values(0.5F);
  auto& filter = *search.mutable_filter()->mutable_any_of()->add_filters();
  filter.mutable_range()->mutable_field()->set_metadata_key("year");
  retriever::v1::UpsertDocumentsRequest upsert;
  auto& document = *upsert.add_writes()->mutable_document();
  document.set_id("a");
  document.set_text("text");
  (*document.mutable_metadata())["year"].add_values()->set_int_value(-7);
  retriever::v1::DeleteDocumentsRequest remove;
  remove.add_document_ids("a");
  generator::v1::GenerateRequest generate;
  for (const int id : {1, 300, 70'000}) generate.mutable_tokens()->add_ids(id);
  generate.add_stop_ids(2);
  generate.add_stop_strings("stop");
  return {Seed(0, search), Seed(1, upsert), Seed(4, remove), Seed(10, generate), std::string("\0\x7b\x7c", 3)};
}

void FuzzOne(std::string_view input) {
  if (input.empty()) return;
  const std::unique_ptr<google::protobuf::Message> message(
      Kinds()[static_cast<unsigned char>(input[0]) % Kinds().size()]->New());
  const std::string bytes(input.substr(1));
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer buffer(&slice, 1);
  const auto known = ParsedBytes(buffer, *message);
  if (!ParseMessage(buffer, *message)) return;
  Require(known.has_value(), "a message is taken for none");
  const size_t taken =
      message->SpaceUsedLong() -
      message->GetReflection()->GetMessageFactory()->GetPrototype(message->GetDescriptor())->SpaceUsedLong();
  // Lists of one or two have room for more, which is not counted.
  constexpr size_t kSmallListBytes = 64;
  Require(taken <= 2 * (*known + bytes.size()) + kSmallListBytes, "a message is larger than was known");
}

}  // namespace retro
