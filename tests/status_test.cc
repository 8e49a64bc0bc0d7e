#include "common/rpc/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <tuple>

#include "common/base/error.h"
#include "common/base/file.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/test_paths.h"

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

// Codes of each reason, as docs/errors.md has them.
std::map<std::string, std::set<std::string>> DocumentedCodes() {
  const auto document = ReadFile(SourcePath("docs/errors.md"));
  EXPECT_TRUE(document.ok()) << document.status();
  std::map<std::string, std::set<std::string>> codes;
  const std::regex row("\\| `([A-Z_]+)` \\| ([A-Z_, ]+) \\|"), code("[A-Z_]+");
  for (std::sregex_iterator at(document->begin(), document->end(), row), end; at != end; ++at) {
    const std::string list = (*at)[2];
    for (std::sregex_iterator one(list.begin(), list.end(), code); one != end; ++one)
      codes[(*at)[1]].insert(one->str());
  }
  return codes;
}

TEST(StatusTest, WhatComesWithoutAReasonGetsOneOfTheTableWithItsCode) {
  const auto documented = DocumentedCodes();
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status wire = ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "a library's"));
    const absl::Status status = FromGrpcStatus(wire);
    ASSERT_TRUE(ReasonOf(status).has_value()) << code;
    const std::string reason(ReasonName(*ReasonOf(status)));
    EXPECT_TRUE(documented.at(reason).contains(absl::StatusCodeToString(status.code()))) << reason << ": " << status;
    EXPECT_EQ(RetryAfterOf(status).has_value(), reason == "QUEUE_FULL") << "the table says to wait for so long";
  }
  absl::Status odd = absl::UnavailableError("odd");
  SetReason(odd, Reason::kInternal);
  EXPECT_EQ(ToGrpcStatus(odd).error_code(), grpc::StatusCode::INTERNAL);
}

TEST(StatusTest, AFileThatCannotBeUsedIsNoFaultOfTheCallers) {
  EXPECT_EQ(ToGrpcStatus(ErrnoStatus(EACCES, "cannot open", "file")).error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(ToGrpcStatus(ErrnoStatus(ENOENT, "cannot open", "file")).error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(ReasonOf(ErrnoStatus(ENOSPC, "cannot write", "file")), Reason::kReadOnly);
}

// What is too large for a call's trailers is lost whole, and then nothing tells what went wrong.
TEST(StatusTest, WhatACallerSentDoesNotMakeAStatusTooLarge) {
  std::string name;
  for (int i = 0; i < 100'000; ++i) name += "\u00e9";
  const grpc::Status wire = ToGrpcStatus(FieldError(name, name));
  EXPECT_EQ(wire.error_message().size(), 1023);  // cut between characters
  EXPECT_TRUE(wire.error_message().ends_with("\u00e9..."));
  EXPECT_LT(wire.error_details().size(), 3000);
  const absl::Status back = FromGrpcStatus(wire);
  EXPECT_EQ(ReasonOf(back), Reason::kInvalidField);
  EXPECT_TRUE(FieldOf(back).has_value());
}

TEST(StatusTest, ADelayThatNoServerOfOursNamesIsBounded) {
  for (const auto& [seconds, nanos, expected] :
       {std::tuple(INT64_MAX, INT32_MAX, std::chrono::milliseconds(86'400'999)),
        std::tuple(INT64_MIN, INT32_MIN, std::chrono::milliseconds(0))}) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(seconds);
    retry.mutable_retry_delay()->set_nanos(nanos);
    google::rpc::Status details;
    details.add_details()->PackFrom(retry);
    EXPECT_EQ(RetryAfterOf(FromGrpcStatus({grpc::StatusCode::UNAVAILABLE, "later", details.SerializeAsString()})),
              expected);
  }
}

TEST(StatusTest, StatusOfAnotherServerHasNoReason) {
  const absl::Status foreign = FromGrpcStatus({grpc::StatusCode::UNAVAILABLE, "connection refused"});
  EXPECT_EQ(foreign.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(foreign), std::nullopt);
}

}  // namespace
}  // namespace retro
