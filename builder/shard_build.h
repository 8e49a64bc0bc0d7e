// One shard of a store while it is built. It grows in OUT.unfinished, beside a note of how far it is, and is moved to
// OUT when it is whole: what is at OUT can be served.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "builder/document_source.h"
#include "common/document/protos.h"
#include "retriever_service/index/index_settings.h"
#include "retriever_service/shard/local_shard.h"

namespace retro {

struct TargetOptions {
  std::string out;           // the data folder to make
  std::string cluster_file;  // that it will be a part of; "": a standalone store
  uint32_t shard = 0;        // its number there
  IndexSettings index;
};

// Which shard is built.
struct TargetIdentity {
  std::string cluster;
  std::string store_id;  // "" for a standalone store, which gets one at random
  uint32_t shard = 0;
  uint32_t shard_count = 1;
  uint32_t first_slot = 0;
  uint32_t last_slot = 0;

  bool Holds(const std::string& document_id) const;
  // What it is, and the settings that decide what is in it.
  std::string Fingerprint() const;
};

absl::StatusOr<TargetIdentity> ReadTargetIdentity(const TargetOptions& options);

// Not thread-safe.
class ShardBuild {
 public:
  // `input` stands for what is built from, and how. Goes on with what a build of the same input left.
  // FAILED_PRECONDITION if there is anything else at `options.out` or beside it.
  static absl::StatusOr<std::unique_ptr<ShardBuild>> Open(const TargetOptions& options, const TargetIdentity& identity,
                                                          const std::string& input);

  // It was finished by an earlier run: there is nothing to do.
  bool complete() const { return state_.complete; }
  const SourcePlace& place() const { return state_.place; }
  uint64_t left_out() const { return state_.left_out; }

  // In the same order in every run.
  absl::Status CreateCollection(const pb::CollectionSpec& spec);
  // Durable when it returns, and noted.
  absl::Status Write(DocumentGroup group);
  // Everything was written.
  absl::Status Finish();

 private:
  struct State {
    std::string input;  // hex
    SourcePlace place;
    uint64_t left_out = 0;
    bool complete = false;
  };

  ShardBuild(std::string out, std::string input) : out_(std::move(out)) { state_.input = std::move(input); }
  absl::Status Begin(const TargetOptions& options, const TargetIdentity& identity);
  absl::StatusOr<bool> ReadState(const std::string& folder);
  absl::Status WriteState() const;
  absl::Status Publish() const;
  std::string unfinished() const { return out_ + ".unfinished"; }

  const std::string out_;
  State state_;
  std::unique_ptr<LocalShard> shard_;  // null once it is complete
  std::vector<pb::CollectionSpec> collections_;
};

}  // namespace retro
