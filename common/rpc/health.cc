#include "common/rpc/health.h"

#include <optional>

#include "common/base/handover.h"
#include "common/rpc/message.h"

namespace retro {

using grpc::ByteBuffer;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

namespace {

constexpr size_t kRequestBytesMax = 256;

// Nothing if it is no request, or none that names a service of ours.
std::optional<std::string> NameIn(const ByteBuffer& bytes) {
  HealthCheckRequest request;
  if (bytes.Length() > kRequestBytesMax || !ParseMessage(bytes, request)) return std::nullopt;
  return request.service();
}

void SerializeState(HealthCheckResponse::ServingStatus state, ByteBuffer& bytes) {
  HealthCheckResponse response;
  response.set_status(state);
  SerializeMessage(response, bytes);
}

grpc::Status NoName() { return {grpc::StatusCode::INVALID_ARGUMENT, "service: the name of a service, or \"\""}; }

}  // namespace

// Sends one state after the other; what changes while one is on its way is sent once, as it is then. Deletes itself at
// the end of the call.
class Health::Watcher final : public grpc::ServerWriteReactor<ByteBuffer> {
 public:
  Watcher(Health& health, grpc::CallbackServerContext& context, const std::optional<std::string>& name)
      : health_(health), context_(context), name_(name.value_or("")) {
    const MutexLock lock(health_.mutex_);
    health_.watchers_.insert(this);
    if (name.has_value()) {
      Tell();
    } else {
      End(NoName());
    }
    HandOver(this);
  }

  // What is new.
  void Tell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_.mutex_) {
    if (is_sending_ || has_ended_) return;
    const State state = health_.StateOf(name_);
    if (told_ != state) {
      told_ = state;
      is_sending_ = true;
      SerializeState(state, bytes_);
      HandOver(this);
      StartWrite(&bytes_);
    } else if (health_.stopped_) {
      End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping"));
    }
  }

  // The end, after what is new; who does not take what is on its way is cut.
  void Stop() ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_.mutex_) {
    if (is_sending_) context_.TryCancel();
    Tell();
  }

  void OnWriteDone(bool ok) override {
    TakeOver(this);
    const MutexLock lock(health_.mutex_);
    is_sending_ = false;
    if (ok) {
      Tell();
    } else {
      End(grpc::Status::CANCELLED);
    }
  }
  void OnCancel() override {
    TakeOver(this);
    const MutexLock lock(health_.mutex_);
    End(grpc::Status::CANCELLED);
  }
  void OnDone() override {
    TakeOver(this);
    {
      const MutexLock lock(health_.mutex_);
      health_.watchers_.erase(this);
    }
    delete this;
  }

 private:
  void End(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_.mutex_) {
    if (has_ended_) return;
    has_ended_ = true;
    HandOver(this);
    Finish(status);
  }

  Health& health_;
  grpc::CallbackServerContext& context_;
  const std::string name_;
  std::optional<State> told_ ABSL_GUARDED_BY(health_.mutex_);
  ByteBuffer bytes_;  // on their way
  bool is_sending_ ABSL_GUARDED_BY(health_.mutex_) = false;
  bool has_ended_ ABSL_GUARDED_BY(health_.mutex_) = false;
};

Health::State Health::StateOf(const std::string& name) const {
  const auto serving = serving_.find(name);
  if (serving == serving_.end()) return HealthCheckResponse::SERVICE_UNKNOWN;
  return serving->second && !stopped_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

void Health::Set(const std::string& name, bool serving) {
  const MutexLock lock(mutex_);
  serving_[name] = serving;
  for (Watcher* watcher : watchers_) watcher->Tell();
}

void Health::Stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  for (Watcher* watcher : watchers_) watcher->Stop();
}

grpc::ServerUnaryReactor* Health::Check(grpc::CallbackServerContext* context, const ByteBuffer* request,
                                        ByteBuffer* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const std::optional<std::string> name = NameIn(*request);
  const MutexLock lock(mutex_);
  const State state = StateOf(name.value_or(""));
  if (!name.has_value()) {
    reactor->Finish(NoName());
  } else if (state == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "no service of this name"));
  } else {
    SerializeState(state, *response);
    reactor->Finish(grpc::Status::OK);
  }
  return reactor;
}

grpc::ServerWriteReactor<ByteBuffer>* Health::Watch(grpc::CallbackServerContext* context, const ByteBuffer* request) {
  return new Watcher(*this, *context, NameIn(*request));
}

}  // namespace retro
