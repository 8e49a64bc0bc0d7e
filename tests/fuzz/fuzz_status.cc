// The details of a failed call, as a peer that is none of ours may send them, and what is made of them on their way on.
#include <algorithm>

#include "common/base/error.h"
#include "common/rpc/status.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (const absl::Status& status :
       {FieldError("queries[3].text", "is empty"), QueueFullError("the queue", std::chrono::milliseconds(1250)),
        CallerGoneError(true)}) {
    seeds.push_back(static_cast<char>(status.code()) + ToGrpcStatus(status).error_details());
  }
  return seeds;
}

void FuzzOne(std::string_view input) {
  if (input.empty()) return;
  const int code = 1 + static_cast<unsigned char>(input[0]) % 16;
  const std::string details(input.substr(1));
  const absl::Status status = FromGrpcStatus({static_cast<grpc::StatusCode>(code), details, details});
  Require(!status.ok(), "a failure has become a success");
  const auto delay = RetryAfterOf(status);
  Require(!delay.has_value() || (delay->count() >= 0 && *delay <= std::chrono::hours(25)), "a delay that nobody means");
  const grpc::Status on = ToGrpcStatus(status);
  Require(on.error_message().size() + on.error_details().size() < 8192, "more than a call's trailers have room for");
  const bool text = std::ranges::all_of(details, [](char c) { return c >= ' ' && c <= '~'; });
  Require(!text || ReasonOf(FromGrpcStatus(on)).has_value(), "a failure without a reason");
}

}  // namespace retro
