#include "common/rpc/status.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace retro {
namespace {

TEST(StatusTest, ReasonsKeepTheirNames) {
  for (int i = 0; i <= static_cast<int>(Reason::kInternal); ++i) {
    const auto reason = static_cast<Reason>(i);
    EXPECT_EQ(ReasonFromName(ReasonName(reason)), reason) << ReasonName(reason);
  }
  EXPECT_EQ(ReasonFromName("NO_SUCH_REASON"), std::nullopt);
}

TEST(StatusTest, FieldErrorReachesTheWireAsBadRequest) {
  const grpc::Status wire = ToGrpcStatus(FieldError("queries[3].text", "is empty"));
  EXPECT_EQ(wire.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(wire.error_message(), "queries[3].text: is empty");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(wire.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.domain(), "retro");
  EXPECT_EQ(info.reason(), "INVALID_FIELD");
  google::rpc::BadRequest bad;
  ASSERT_TRUE(details.details(1).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "queries[3].text");
}

TEST(StatusTest, WireAndBackKeepsEverything) {
  const absl::Status full = FromGrpcStatus(ToGrpcStatus(QueueFullError("the queue", std::chrono::milliseconds(1250))));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), Reason::kQueueFull);
  EXPECT_EQ(RetryAfterOf(full), std::chrono::milliseconds(1250));
  const absl::Status field = FromGrpcStatus(ToGrpcStatus(FieldError("k", "is 0")));
  EXPECT_EQ(FieldOf(field), "k");
}

TEST(StatusTest, StatusOfAnotherServerHasNoReason) {
  const absl::Status foreign = FromGrpcStatus({grpc::StatusCode::UNAVAILABLE, "connection refused"});
  EXPECT_EQ(foreign.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(foreign), std::nullopt);
}

}  // namespace
}  // namespace retro
