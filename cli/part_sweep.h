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
  //
  // What is old is found by a document's markers, the uncut one and the next two parts: only where one of them is there
  // are all parts looked at, whatever numbers are missing, as that of a part which was refused. The markers are deleted
  // last, so that after a failure the next run finds the rest.
  grpc::Status Sweep(const std::vector<StoredDocument>& documents);

  // What the server said that it deleted: without what was done by a call that failed.
  uint64_t deleted_count() const { return deleted_count_; }

 private:
  // To be deleted.
  struct OldIds {
    std::vector<std::string> others;  // of each document the higher numbers first
    std::vector<std::string> markers;
  };

  // Adds those of all `documents`, at most kBatchDocuments, in few calls where few of them have any.
  grpc::Status FindOldIds(std::span<const StoredDocument> documents, OldIds* old);
  // Adds those of one document, looking at each.
  grpc::Status FindOldIdsOf(const StoredDocument& document, OldIds* old);
  // Adds the numbers of those parts of the document that the store has, from `first` on; at most kRangeParts are tried.
  grpc::Status FindParts(const StoredDocument& document, uint64_t first, std::vector<uint64_t>* numbers);
  // What is there under a part's id: nothing, that part of the document, or something else.
  grpc::Status LookAtPart(const StoredDocument& document, uint64_t number, bool* exists, bool* is_part);
  grpc::Status DeleteAll(std::span<const std::string> ids);
  // Of at most kIdsMax.
  grpc::Status Delete(std::span<const std::string> ids, bool dry_run, uint64_t* count);

  pb::RetrieverService::Stub& stub_;
  const CommonOptions& options_;
  uint64_t deleted_count_ = 0;
};

}  // namespace retro::cli
