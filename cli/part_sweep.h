// A text that was cut into parts and has become shorter, or longer, is stored under other ids than before: what stands
// under the old ones is deleted.
#pragma once

#include <grpcpp/support/status.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cli/common_options.h"
#include "cli/protocol.h"

namespace retro::cli {

// A document as it is now.
struct StoredDocument {
  std::string id;
  uint64_t part_count = 0;  // 0: it was not cut
};

// Not thread-safe.
class PartSweep {
 public:
  // Both must outlive it.
  PartSweep(pb::RetrieverService::Stub& stub, const CommonOptions& options) : stub_(stub), options_(options) {}

  // Deletes what the store holds of `documents` beside what they are now: the uncut one of those that are cut, and
  // parts with higher numbers. A document that is called like a part, but is none (see kPartOfKey), stays. Where there
  // is nothing to delete, this is one call of the server for thousands of documents. May be repeated after an error.
  grpc::Status Sweep(const std::vector<StoredDocument>& documents);

  uint64_t deleted_count() const { return deleted_count_; }

 private:
  // Of at most kBatchDocuments.
  grpc::Status SweepBatch(std::span<const StoredDocument> documents);
  // Ids that are in the way of `document`.
  grpc::Status FindOldIds(const StoredDocument& document, std::vector<std::string>* ids);
  // Whether the store has that part of it.
  grpc::Status LookAtPart(const StoredDocument& document, uint64_t number, bool* is_part);
  grpc::Status Delete(const std::vector<std::string>& ids, bool dry_run, uint64_t* count);

  pb::RetrieverService::Stub& stub_;
  const CommonOptions& options_;
  uint64_t deleted_count_ = 0;
};

}  // namespace retro::cli
