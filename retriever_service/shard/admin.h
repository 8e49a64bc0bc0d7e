// What operators ask of a store: one method an RPC of retro/admin/v1/admin.proto. The messages' comments are the
// contract.
#pragma once

#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/error.h"
#include "retro/admin/v1/admin.pb.h"

namespace retro {

namespace adminpb = ::retro::admin::v1;

// Any thread; calls block. What a server has no use for answers UNIMPLEMENTED (NOT_SUPPORTED).
class Admin {
 public:
  virtual ~Admin() = default;

#define RETRO_ADMIN_METHOD(Method)                                                                                \
  virtual absl::StatusOr<adminpb::Method##Response> Method(const adminpb::Method##Request&, const CallContext&) { \
    return Error(absl::StatusCode::kUnimplemented, Reason::kNotSupported, #Method " is not served here");         \
  }
  RETRO_ADMIN_METHOD(CreateSnapshot)
  RETRO_ADMIN_METHOD(ListSnapshots)
  RETRO_ADMIN_METHOD(DeleteSnapshot)
  RETRO_ADMIN_METHOD(RestoreSnapshot)
  RETRO_ADMIN_METHOD(Verify)
  RETRO_ADMIN_METHOD(Compact)
  RETRO_ADMIN_METHOD(SetReadOnly)
  RETRO_ADMIN_METHOD(TrainIndex)
  RETRO_ADMIN_METHOD(ListReplicas)
  RETRO_ADMIN_METHOD(Promote)
  RETRO_ADMIN_METHOD(GetOperation)
#undef RETRO_ADMIN_METHOD
};

}  // namespace retro
