// Where the documents of a build come from, a group at a time. Groups depend on the input alone, so that a build that
// was killed goes on with the very groups that it would have had.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

// Where a source goes on.
struct SourcePlace {
  uint64_t source = 0;   // which file, or which collection of which store
  uint64_t ordinal = 0;  // the next document of a file; the slot of the last document of a store
  std::string id;        // of the last document of a store
};

// Documents that are written together: no id twice.
struct DocumentGroup {
  std::string collection;
  std::vector<shardpb::DocumentChange> changes;
  SourcePlace next;
  uint64_t left_out = 0;  // documents that could not be read, and were reported
};

// When a group is full.
inline constexpr size_t kGroupDocuments = 256;
inline constexpr size_t kGroupBytes = size_t{1} << 20;

// Not thread-safe.
class DocumentSource {
 public:
  virtual ~DocumentSource() = default;
  // Before the first Next.
  virtual void GoOnAt(const SourcePlace& place) = 0;
  // Nothing at the end.
  virtual absl::StatusOr<std::optional<DocumentGroup>> Next() = 0;
  // How much of it is read, 0 to 1, for a progress line.
  virtual double share_read() const = 0;
};

// A line on standard error about a document that is left out.
void ReportLeftOut(std::string_view problem);

}  // namespace retro
