// Who may call what: API keys at the edge of a server. A key comes as `authorization: Bearer KEY`; what a method needs
// is in one table, and a method that is not in it needs an admin key.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/caller.h"
#include "common/base/sync.h"
#include "common/base/watched_file.h"
#include "common/rpc/api_keys.h"

namespace retro {

// Any thread.
class AccessControl {
 public:
  using Clock = std::chrono::steady_clock;

  // Reads the file (see api_keys.h); after that it is read again within a second of a change, and one that cannot be
  // read or used then is logged and changes nothing. INVALID_ARGUMENT or the errors of ReadFile.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Open(const std::string& path,
                                                             std::function<Clock::time_point()> now = Clock::now);
  // Whether Open would take the file.
  static absl::Status Check(const std::string& path);

  // Who calls `method`, to be kept as long as the call lasts. UNAUTHENTICATED without a key or with a wrong one,
  // PERMISSION_DENIED for too small a role, RESOURCE_EXHAUSTED with a delay past the key's rate or calls at once.
  // `name`, if given, is set to the name of the key, also of a call that is refused though its key is known.
  absl::StatusOr<std::shared_ptr<const Caller>> Admit(std::string_view authorization, std::string_view method,
                                                      std::string* name = nullptr);

  // Whether the caller of a `method` that goes on and on may do so: UNAUTHENTICATED once its key has left the file or
  // has another hash there, PERMISSION_DENIED once its role is too small. Counts nothing.
  absl::Status AdmitFurther(const Caller& caller, std::string_view method);

 private:
  // Of a key's name; what is counted survives a new file.
  struct Usage {
    double requests_left = 0;  // a bucket that fills at the key's rate up to one second of it
    Clock::time_point filled;
    std::shared_ptr<std::atomic<int64_t>> calls = std::make_shared<std::atomic<int64_t>>(0);
  };

  AccessControl(const std::string& path, std::function<Clock::time_point()> now) : now_(std::move(now)), file_(path) {}
  absl::Status Refresh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RefreshOrLog() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeRequest(const ApiKey& key, Usage& usage) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<Clock::time_point()> now_;
  Mutex mutex_;
  WatchedFile file_ ABSL_GUARDED_BY(mutex_);
  std::vector<ApiKey> keys_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Usage> usage_ ABSL_GUARDED_BY(mutex_);
};

// Admits the call to `method` and notes its caller in `call`; also who is refused. Without `access` (null) everybody
// may call everything.
absl::Status Admit(AccessControl* access, const grpc::CallbackServerContext& context, std::string_view method,
                   CallContext& call);

// As AccessControl::AdmitFurther, of a call that was admitted.
absl::Status AdmitFurther(AccessControl* access, std::string_view method, const CallContext& call);

// INVALID_ARGUMENT if what the request has in its field `collection` is no name, PERMISSION_DENIED if the caller's key
// is not for that collection.
absl::Status CheckCollectionField(const google::protobuf::Message& request, const CallContext& call);

// True for calls that the audit log is to have: those of operators, those that delete and those that copy a store.
bool IsAudited(std::string_view method);
// True also for those that it is to have if they are refused for their key: all that need an admin key.
bool IsAuditedIfRefused(std::string_view method);

}  // namespace retro
