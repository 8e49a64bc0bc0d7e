#include "common/rpc/access.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/log.h"

namespace retro {
namespace {

constexpr std::string_view kScheme = "Bearer ";
constexpr std::chrono::milliseconds kRetryAfter{1000};

struct MethodPolicy {
  std::string_view method;
  Role role;
  bool audited = false;
};

constexpr std::array kPolicies = {
    MethodPolicy{"Search", Role::kRead},
    MethodPolicy{"Embed", Role::kRead},
    MethodPolicy{"CutChunks", Role::kRead},
    MethodPolicy{"GetDocument", Role::kRead},
    MethodPolicy{"GetChunks", Role::kRead},
    MethodPolicy{"ListDocuments", Role::kRead},
    MethodPolicy{"ListCollections", Role::kRead},
    MethodPolicy{"Stats", Role::kRead},
    MethodPolicy{"GetInfo", Role::kRead},
    MethodPolicy{"Ingest", Role::kWrite},
    MethodPolicy{"UpsertDocuments", Role::kWrite},
    MethodPolicy{"DeleteDocuments", Role::kWrite, true},
    MethodPolicy{"Generate", Role::kRead},
    MethodPolicy{"Score", Role::kRead},
    MethodPolicy{"GetModel", Role::kRead},
    MethodPolicy{"shard.Search", Role::kRead},
    MethodPolicy{"shard.GetDocument", Role::kRead},
    MethodPolicy{"shard.GetChunks", Role::kRead},
    MethodPolicy{"shard.ListDocuments", Role::kRead},
    MethodPolicy{"shard.Stats", Role::kRead},
    MethodPolicy{"shard.GetShardInfo", Role::kRead},
    MethodPolicy{"shard.Write", Role::kWrite},
    MethodPolicy{"shard.WriteInParts", Role::kWrite},
    MethodPolicy{"shard.Delete", Role::kWrite, true},
    MethodPolicy{"shard.PullChanges", Role::kAdmin},
    MethodPolicy{"shard.FetchSnapshot", Role::kAdmin, true},
    MethodPolicy{"shard.KeepLog", Role::kAdmin},
};

MethodPolicy PolicyOf(std::string_view method) {
  const auto* found = std::find_if(kPolicies.begin(), kPolicies.end(),
                                   [&](const MethodPolicy& policy) { return policy.method == method; });
  return found != kPolicies.end() ? *found : MethodPolicy{method, Role::kAdmin, true};
}

std::string_view RoleName(Role role) {
  return role == Role::kAdmin ? "an admin" : role == Role::kWrite ? "a write" : "a read";
}

absl::Status Unauthenticated(std::string_view what) {
  return Error(absl::StatusCode::kUnauthenticated, Reason::kUnauthenticated, what);
}

absl::Status Limited(const ApiKey& key, std::string_view what, std::chrono::milliseconds retry_after) {
  absl::Status status =
      Error(absl::StatusCode::kResourceExhausted, Reason::kKeyLimit, StrCat("the API key '", key.name, "' ", what));
  SetRetryAfter(status, retry_after);
  return status;
}

absl::Status CheckRole(const ApiKey& key, std::string_view method) {
  const Role needed = PolicyOf(method).role;
  if (key.role >= needed) return absl::OkStatus();
  return Error(absl::StatusCode::kPermissionDenied, Reason::kPermissionDenied,
               StrCat(method, " needs ", RoleName(needed), " key, '", key.name, "' is ", RoleName(key.role), " key"));
}

// For the audit log: without keys, or with a wrong one, it is all that tells who calls.
void NotePeer(const grpc::CallbackServerContext& context, CallContext& call) {
  call.peer = context.peer();
  const auto identity = context.auth_context();
  if (identity == nullptr || !identity->IsPeerAuthenticated()) return;
  for (const grpc::string_ref& name : identity->GetPeerIdentity()) {
    call.certificate.append(call.certificate.empty() ? "" : ",").append(name.data(), name.size());
  }
}

absl::StatusOr<std::vector<ApiKey>> KeysIn(const WatchedFile& file, const std::string& content) {
  auto keys = ParseApiKeys(content);
  if (!keys.ok()) return FieldError("--api-keys", StrCat(file.path(), ": ", MessageOf(keys.status())));
  return keys;
}

}  // namespace

absl::Status AccessControl::Check(const std::string& path) {
  WatchedFile file(path);
  RETRO_ASSIGN_OR_RETURN(const std::optional<std::string> content, file.News());
  return KeysIn(file, content.value_or("")).status();
}

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Open(const std::string& path,
                                                                   std::function<Clock::time_point()> now) {
  std::unique_ptr<AccessControl> access(new AccessControl(path, std::move(now)));
  const MutexLock lock(access->mutex_);
  RETRO_RETURN_IF_ERROR(access->Refresh());
  return access;
}

absl::Status AccessControl::Refresh() {
  RETRO_ASSIGN_OR_RETURN(const std::optional<std::string> content, file_.News());
  if (!content.has_value()) return absl::OkStatus();
  RETRO_ASSIGN_OR_RETURN(keys_, KeysIn(file_, *content));
  LogEvent(spdlog::level::info, "api keys read", {{"file", file_.path()}, {"keys", std::to_string(keys_.size())}});
  return absl::OkStatus();
}

absl::Status AccessControl::TakeRequest(const ApiKey& key, Usage& usage) {
  if (!key.requests_per_second_max.has_value()) return absl::OkStatus();
  const double rate = *key.requests_per_second_max;
  const double most = std::max(rate, 1.0);
  const Clock::time_point now = now_();
  const bool first = usage.filled == Clock::time_point();
  const double filled = first ? most : std::chrono::duration<double>(now - usage.filled).count() * rate;
  usage.requests_left = std::min(most, usage.requests_left + filled);
  usage.filled = now;
  if (usage.requests_left < 1) {
    const auto wait_ms = static_cast<int64_t>(std::ceil((1 - usage.requests_left) / rate * 1000));
    return Limited(key, StrCat("may make ", rate, " requests a second"), std::chrono::milliseconds(wait_ms));
  }
  usage.requests_left -= 1;
  return absl::OkStatus();
}

void AccessControl::RefreshOrLog() {
  if (const absl::Status status = Refresh(); !status.ok()) {
    LogEvent(spdlog::level::err, "api keys not read", {{"message", std::string(status.message())}});
  }
}

absl::StatusOr<std::shared_ptr<const Caller>> AccessControl::Admit(std::string_view authorization,
                                                                   std::string_view method, std::string* name) {
  const MutexLock lock(mutex_);
  RefreshOrLog();
  if (authorization.empty()) return Unauthenticated("this server wants an API key: send authorization: Bearer KEY");
  const bool bearer = authorization.starts_with(kScheme);
  const ApiKey* key = bearer ? FindApiKey(keys_, authorization.substr(kScheme.size())) : nullptr;
  if (key == nullptr) return Unauthenticated("the API key is not one of this server's");
  if (name != nullptr) *name = key->name;
  RETRO_RETURN_IF_ERROR(CheckRole(*key, method));
  Usage& usage = usage_[key->name];
  if (usage.calls->load() >= key->streams_max.value_or(INT64_MAX)) {
    return Limited(*key, StrCat("may have ", *key->streams_max, " calls at once"), kRetryAfter);
  }
  RETRO_RETURN_IF_ERROR(TakeRequest(*key, usage));
  usage.calls->fetch_add(1);
  auto caller = std::make_shared<Caller>(Caller{key->name, key->sha256, key->collections, key->tokens_max, nullptr});
  caller->place = std::shared_ptr<void>(nullptr, [calls = usage.calls](void*) { calls->fetch_sub(1); });
  return caller;
}

absl::Status AccessControl::AdmitFurther(const Caller& caller, std::string_view method) {
  const MutexLock lock(mutex_);
  RefreshOrLog();
  const auto key = std::find_if(keys_.begin(), keys_.end(), [&](const ApiKey& one) { return one.name == caller.key; });
  if (key == keys_.end() || key->sha256 != caller.key_hash) {
    return Unauthenticated(StrCat("the API key '", caller.key, "' is no longer one of this server's"));
  }
  if (key->collections != caller.collections) {
    return Error(absl::StatusCode::kPermissionDenied, Reason::kPermissionDenied,
                 StrCat("the API key '", caller.key, "' is now for other collections: begin anew"));
  }
  return CheckRole(*key, method);
}

absl::Status Admit(AccessControl* access, const grpc::CallbackServerContext& context, std::string_view method,
                   CallContext& call) {
  if (IsAuditedIfRefused(method)) NotePeer(context, call);
  if (access == nullptr) return absl::OkStatus();
  const auto& metadata = context.client_metadata();
  const auto header = metadata.find("authorization");
  const std::string_view authorization =
      header == metadata.end() ? std::string_view() : std::string_view(header->second.data(), header->second.size());
  std::string name;
  auto caller = access->Admit(authorization, method, &name);
  absl::Status status = caller.status();
  if (status.ok()) {
    call.caller = *std::move(caller);
  } else if (!name.empty()) {
    call.caller = std::make_shared<Caller>(Caller{.key = name});
  }
  return status;
}

absl::Status AdmitFurther(AccessControl* access, std::string_view method, const CallContext& call) {
  if (access == nullptr || call.caller == nullptr) return absl::OkStatus();
  return access->AdmitFurther(*call.caller, method);
}

absl::Status CheckCollectionField(const google::protobuf::Message& request, const CallContext& call) {
  const auto* field = request.GetDescriptor()->FindFieldByName("collection");
  if (field == nullptr || field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
    return absl::OkStatus();
  }
  std::string scratch;
  const std::string& name = request.GetReflection()->GetStringReference(request, field, &scratch);
  RETRO_RETURN_IF_ERROR(CheckCollectionLength("collection", name));
  return CheckCollection(call.caller.get(), name);
}

bool IsAudited(std::string_view method) { return PolicyOf(method).audited; }

bool IsAuditedIfRefused(std::string_view method) {
  const MethodPolicy policy = PolicyOf(method);
  return policy.audited || policy.role == Role::kAdmin;
}

}  // namespace retro
