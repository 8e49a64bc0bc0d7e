#include "retriever_service/serve/validate.h"

#include <gtest/gtest.h>

#include <limits>

#include "common/base/error.h"

namespace retro {
namespace {

pb::SearchRequest GoodSearch() {
  pb::SearchRequest request;
  request.add_queries()->set_text("what is a daemon?");
  return request;
}

// The field that a request is refused for; "" if it is not refused.
template <typename Request>
std::string RefusedField(const Request& request) {
  const absl::Status status = Validate(request);
  if (status.ok()) return "";
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return FieldOf(status).value_or("(no field)");
}

TEST(ValidateTest, SearchBounds) {
  EXPECT_EQ(RefusedField(GoodSearch()), "");
  EXPECT_EQ(RefusedField(pb::SearchRequest()), "queries");
  auto request = GoodSearch();
  request.set_k(0);
  EXPECT_EQ(RefusedField(request), "k");
  request.set_k(1'000'000'000);
  EXPECT_EQ(RefusedField(request), "k");
  request.set_k(1000);
  EXPECT_EQ(RefusedField(request), "");
  request.set_max_distance(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(RefusedField(request), "max_distance");
  request = GoodSearch();
  request.mutable_effort()->set_level(1.5f);
  EXPECT_EQ(RefusedField(request), "effort.level");
  request = GoodSearch();
  request.mutable_max_wait()->set_seconds(61);
  EXPECT_EQ(RefusedField(request), "max_wait");
  request = GoodSearch();
  for (int i = 0; i < 256; ++i) request.add_queries()->set_text("x");
  EXPECT_EQ(RefusedField(request), "queries");
}

TEST(ValidateTest, SearchQueries) {
  auto request = GoodSearch();
  request.add_queries();
  EXPECT_EQ(RefusedField(request), "queries[1]");
  request.mutable_queries(1)->set_text("");
  EXPECT_EQ(RefusedField(request), "queries[1].text");
  request.mutable_queries(1)->set_text(std::string((64 << 10) + 1, 'x'));
  EXPECT_EQ(RefusedField(request), "queries[1].text");
  request.mutable_queries(1)->mutable_vector()->add_values(std::numeric_limits<float>::infinity());
  EXPECT_EQ(RefusedField(request), "queries[1].vector");
  request.mutable_queries(1)->mutable_vector()->set_values(0, 1);
  EXPECT_EQ(RefusedField(request), "queries[1].embedder_fingerprint");
}

TEST(ValidateTest, MaxWaitBeyondWhatMillisecondsHold) {
  auto request = GoodSearch();
  request.mutable_max_wait()->set_seconds(60);
  EXPECT_EQ(RefusedField(request), "");
  for (const int64_t seconds : {int64_t{18446744073709552}, std::numeric_limits<int64_t>::max(), int64_t{-1}}) {
    request.mutable_max_wait()->set_seconds(seconds);  // the first one times 1,000 wraps to 384
    EXPECT_EQ(RefusedField(request), "max_wait") << seconds;
  }
  request.mutable_max_wait()->set_seconds(1);
  request.mutable_max_wait()->set_nanos(-1);
  EXPECT_EQ(RefusedField(request), "max_wait");
}

TEST(ValidateTest, IdsThatNoDocumentCanHave) {
  const std::string huge(size_t{1} << 20, 'x');
  auto search = GoodSearch();
  search.add_exclude_document_ids("a");
  EXPECT_EQ(RefusedField(search), "");
  search.add_exclude_document_ids(huge);  // would be copied for each of up to 256 queries
  EXPECT_EQ(RefusedField(search), "exclude_document_ids[1]");
  search = GoodSearch();
  search.mutable_queries(0)->add_exclude_document_ids("");
  EXPECT_EQ(RefusedField(search), "queries[0].exclude_document_ids[0]");
  pb::GetDocumentRequest get;
  get.set_document_id("two\nlines");
  EXPECT_EQ(RefusedField(get), "document_id");
  pb::GetChunksRequest chunks;
  chunks.set_document_id(huge);
  EXPECT_EQ(RefusedField(chunks), "document_id");
  pb::DeleteDocumentsRequest remove;
  remove.add_document_ids(huge);
  EXPECT_EQ(RefusedField(remove), "document_ids[0]");
}

TEST(ValidateTest, DeleteNeedsIdsOrAFilter) {
  pb::DeleteDocumentsRequest request;
  EXPECT_EQ(RefusedField(request), "document_ids");
  request.add_document_ids("a");
  EXPECT_EQ(RefusedField(request), "");
  request.mutable_filter();
  EXPECT_EQ(RefusedField(request), "document_ids");
}

TEST(ValidateTest, Pages) {
  pb::ListDocumentsRequest list;
  EXPECT_EQ(RefusedField(list), "");
  list.set_page_size(0);
  EXPECT_EQ(RefusedField(list), "page_size");
  pb::GetChunksRequest chunks;
  EXPECT_EQ(RefusedField(chunks), "document_id");
  chunks.set_document_id("a");
  chunks.set_max_chunks(1025);
  EXPECT_EQ(RefusedField(chunks), "max_chunks");
}

}  // namespace
}  // namespace retro
