// absl::Status at the RPC edge: our reasons as google.rpc.ErrorInfo (domain "retro"), BadRequest and RetryInfo, and
// back.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace retro {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace retro
