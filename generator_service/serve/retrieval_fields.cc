#include "generator_service/serve/retrieval_fields.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/base/caller.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;

constexpr size_t kFilterBytesMax = 256 << 10;
constexpr int kExcludedMax = 1024;
constexpr size_t kDocumentIdBytesMax = 512;
constexpr size_t kTokenBytesMax = 64 << 10;
constexpr std::chrono::milliseconds kTimeoutDefault{2000};
constexpr std::chrono::milliseconds kTimeoutMax{60'000};

absl::Status CheckEffort(const retriever::v1::Effort& effort) {
  if (effort.kind_case() == retriever::v1::Effort::KIND_NOT_SET)
    return FieldError("retrieval.effort", "set level or exact");
  // Negated, so that NaN fails too.
  if (effort.kind_case() == retriever::v1::Effort::kLevel && !(effort.level() >= 0 && effort.level() <= 1))
    return FieldError("retrieval.effort.level", "must be from 0 to 1");
  return absl::OkStatus();
}

absl::Status CheckExcluded(const pb::Retrieval& message) {
  if (message.exclude_document_ids_size() > kExcludedMax)
    return FieldError("retrieval.exclude_document_ids", "at most " + std::to_string(kExcludedMax));
  for (int i = 0; i < message.exclude_document_ids_size(); ++i) {
    const std::string& id = message.exclude_document_ids(i);
    if (id.empty() || id.size() > kDocumentIdBytesMax)
      return FieldError("retrieval.exclude_document_ids[" + std::to_string(i) + "]", "must have 1 to 512 bytes");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<retriever::v1::SearchRequest> SearchOf(const pb::Retrieval& message, int64_t k_default, int64_t k_max) {
  RETRO_RETURN_IF_ERROR(CheckCollectionLength("retrieval.collection", message.collection()));
  if (message.has_k() && (message.k() < 1 || message.k() > k_max))
    return FieldError("retrieval.k", "must be from 1 to " + std::to_string(k_max));
  if (message.has_effort()) RETRO_RETURN_IF_ERROR(CheckEffort(message.effort()));
  if (message.has_max_distance() && !(std::isfinite(message.max_distance()) && message.max_distance() > 0))
    return FieldError("retrieval.max_distance", "must be a finite number above 0");
  if (message.consistency_token().size() > kTokenBytesMax)
    return FieldError("retrieval.consistency_token", "is too long to be one of ours");
  if (message.filter().ByteSizeLong() > kFilterBytesMax)
    return FieldError("retrieval.filter", "must have at most 256 KiB");
  RETRO_RETURN_IF_ERROR(CheckExcluded(message));

  retriever::v1::SearchRequest search;
  search.set_collection(message.collection());
  search.set_k(message.has_k() ? message.k() : static_cast<uint32_t>(std::min(k_default, k_max)));
  if (message.has_effort()) *search.mutable_effort() = message.effort();
  if (message.has_max_distance()) search.set_max_distance(message.max_distance());
  if (message.has_filter()) *search.mutable_filter() = message.filter();
  *search.mutable_exclude_document_ids() = message.exclude_document_ids();
  search.set_consistency_token(message.consistency_token());
  search.set_allow_partial(message.allow_partial());
  return search;
}

absl::StatusOr<std::chrono::milliseconds> LookupTimeout(const pb::Retrieval& message) {
  if (!message.has_timeout()) return kTimeoutDefault;
  const google::protobuf::Duration& given = message.timeout();
  // Seconds first: absurd ones must not overflow.
  const bool in_range =
      given.seconds() >= 0 && given.seconds() <= 60 && given.nanos() >= 0 && given.nanos() < 1'000'000'000;
  const std::chrono::milliseconds timeout(in_range ? given.seconds() * 1000 + given.nanos() / 1'000'000 : 0);
  if (timeout < std::chrono::milliseconds(1) || timeout > kTimeoutMax)
    return FieldError("retrieval.timeout", "must be from 1 ms to 60 s");
  return timeout;
}

}  // namespace retro
