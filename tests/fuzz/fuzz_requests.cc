// Requests as bytes through the validators of the retriever, documents and filters with them: the first byte says
// which.
#include "common/document/document_limits.h"
#include "retriever_service/index/filter.h"
#include "retriever_service/serve/validate.h"
#include "tests/fuzz/fuzz.h"

namespace retro {
namespace {

namespace pb = ::retro::retriever::v1;

template <typename Request>
void Check(std::string_view bytes) {
  Request request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const bool valid = Validate(request).ok();
  if constexpr (requires { request.filter(); }) static_cast<void>(CompiledFilter::Compile(request.filter(), "filter"));
  if constexpr (requires { request.writes(); }) {
    for (const auto& write : request.writes()) static_cast<void>(CheckDocument(write.document(), "write"));
    Require(!valid || request.writes_size() > 0, "nothing to write is taken for a request");
  }
}

std::string Seed(char kind, const google::protobuf::Message& message) { return kind + message.SerializeAsString(); }

}  // namespace

std::vector<std::string> FuzzSeeds() {
  pb::SearchRequest search;
  search.add_queries()->set_text("text");
  search.add_queries()->mutable_vector()->add_values(0.5F);
  search.set_k(2);
  auto& filter = *search.mutable_filter()->mutable_any_of()->add_filters()->mutable_none_of()->add_filters();
  filter.mutable_range()->mutable_field()->set_metadata_key("year");
  pb::UpsertDocumentsRequest upsert;
  auto& document = *upsert.add_writes()->mutable_document();
  document.set_id("a");
  document.set_text("text");
  (*document.mutable_metadata())["year"].add_values()->set_int_value(7);
  pb::DeleteDocumentsRequest remove;
  remove.add_document_ids("a");
  pb::ListDocumentsRequest list;
  list.set_page_size(10);
  pb::GetChunksRequest chunks;
  chunks.set_document_id("a");
  chunks.set_max_chunks(4);
  return {Seed(0, search), Seed(3, upsert), Seed(4, remove), Seed(7, list), Seed(6, chunks)};
}

void FuzzOne(std::string_view input) {
  if (input.empty()) return;
  const std::string_view bytes = input.substr(1);
  switch (input[0] & 7) {
    case 0:
      return Check<pb::SearchRequest>(bytes);
    case 1:
      return Check<pb::EmbedRequest>(bytes);
    case 2:
      return Check<pb::CutChunksRequest>(bytes);
    case 3:
      return Check<pb::UpsertDocumentsRequest>(bytes);
    case 4:
      return Check<pb::DeleteDocumentsRequest>(bytes);
    case 5:
      return Check<pb::GetDocumentRequest>(bytes);
    case 6:
      return Check<pb::GetChunksRequest>(bytes);
    default:
      return Check<pb::ListDocumentsRequest>(bytes);
  }
}

}  // namespace retro
