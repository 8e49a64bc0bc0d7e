// What a document sent to a shard does to the one stored under its id: pure decisions, apart from carrying them out.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

enum class Verdict {
  kCreate,           // there was none
  kReplace,          // the text changed: new rows
  kReplaceMetadata,  // title, source or metadata changed: rows and vectors stay
  kStoreVersion,     // the same content under a newer external version, which is kept so that what lies between is
                     // refused, or under another one of a change that goes for any
  kUnchanged,        // the same content
  kNeedsChunks,      // one of the first two, and the text and its chunks were not sent
};

// `dimension` is the collection's. FAILED_PRECONDITION (VERSION_TOO_OLD) if a newer external version is stored and the
// change does not go for any;
// INVALID_ARGUMENT, naming the field, for chunks that do not tile the text between characters, and for vectors of
// another size or not finite.
absl::StatusOr<Verdict> Judge(const std::optional<shardpb::DocumentRecord>& old, const shardpb::DocumentChange& change,
                              uint32_t dimension);

// Those of all its chunks, row after row, half precision.
std::string VectorsOf(const shardpb::DocumentChange& change);

// Those of a change that the shard's primary made. DATA_LOSS (STORE_DAMAGED) if one is not of that dimension: an index
// takes them as they are.
absl::StatusOr<std::string> VectorsOf(const shardpb::PullChangesResponse& replicated, uint32_t dimension);

// The error of several changes of which some were done when `why` came: what that says of what was done is true of the
// rest alone. UNAVAILABLE (WRITE_OUTCOME_UNKNOWN).
absl::Status DoneInPart(const absl::Status& why);

}  // namespace retro
