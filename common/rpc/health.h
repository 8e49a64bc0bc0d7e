// grpc.health.v1 of our own: gRPC's lets whoever watches hold up the end of a server for as long as it may drain.
#pragma once

#include <map>
#include <set>
#include <string>

#include "common/base/sync.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace retro {

// Its messages come and go as bytes (see message.h): anybody may ask, without a key. Must outlive the server. Any
// thread.
class Health final : public grpc::health::v1::Health::WithRawCallbackMethod_Check<
                         grpc::health::v1::Health::WithRawCallbackMethod_Watch<grpc::health::v1::Health::Service>> {
 public:
  // Of a name that was never set Check says NOT_FOUND, and Watch SERVICE_UNKNOWN. "", the whole server, serves.
  void Set(const std::string& name, bool serving) ABSL_LOCKS_EXCLUDED(mutex_);

  // NOT_SERVING of every name from now on; who watches is told, and the call ends.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override ABSL_LOCKS_EXCLUDED(mutex_);
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Watcher;
  using State = grpc::health::v1::HealthCheckResponse::ServingStatus;

  State StateOf(const std::string& name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_) = {{"", true}};
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace retro
