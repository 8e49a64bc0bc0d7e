#include "builder/shard_build.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <system_error>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/item_error.h"
#include "nlohmann/json.hpp"
#include "retriever_service/cluster/cluster_file.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

namespace fs = std::filesystem;

constexpr char kStateFile[] = "/build.json";
constexpr int kStateVersion = 1;
// Segments that may wait to be sealed while more is written: they are in memory until then.
constexpr size_t kUnsealedMax = 2;

absl::Status FromSystem(const std::error_code& error, std::string_view what, const std::string& path) {
  return error ? ErrnoStatus(error.value(), what, path) : absl::OkStatus();
}

}  // namespace

void ReportLeftOut(std::string_view problem) { std::cerr << "left out: " << problem << "\n"; }

// ---------------------------------------------------------------- which shard

bool TargetIdentity::Holds(const std::string& document_id) const {
  const uint32_t slot = SlotOfDocument(document_id);
  return slot >= first_slot && slot <= last_slot;
}

std::string TargetIdentity::Fingerprint() const {
  Sha256 hash;
  hash.UpdateField(cluster);
  hash.UpdateField(store_id);
  hash.UpdateField(StrCat(shard, "/", shard_count, " ", first_slot, "-", last_slot));
  return hash.Finish();
}

absl::StatusOr<TargetIdentity> ReadTargetIdentity(const TargetOptions& options) {
  TargetIdentity identity;
  identity.last_slot = kSlotCount - 1;
  if (options.cluster_file.empty()) {
    if (options.shard == 0) return identity;
    return FieldError("--shard", "a standalone store has shard 0 alone: name the cluster's file with --cluster-file");
  }
  RETRO_ASSIGN_OR_RETURN(const ClusterConfig config, ReadClusterFile(options.cluster_file));
  if (options.shard >= config.shards.size()) {
    return FieldError("--shard", StrCat(options.cluster_file, " has shards 0 to ", config.shards.size() - 1));
  }
  const ShardConfig& shard = config.shards[options.shard];
  if (shard.epoch != kFoundingEpoch) {
    return absl::FailedPreconditionError(
        StrCat(options.cluster_file, " is of a cluster that runs already (shard ", options.shard, " is in epoch ",
               shard.epoch, "): give the one that the store is built for, where every epoch is ", kFoundingEpoch));
  }
  identity.cluster = config.cluster;
  identity.store_id = config.store_id;
  identity.shard = options.shard;
  identity.shard_count = static_cast<uint32_t>(config.shards.size());
  identity.first_slot = shard.first_slot;
  identity.last_slot = shard.last_slot;
  return identity;
}

// ---------------------------------------------------------------- beginning

absl::StatusOr<std::unique_ptr<ShardBuild>> ShardBuild::Open(const TargetOptions& options,
                                                             const TargetIdentity& identity, const std::string& input) {
  Sha256 hash;
  hash.UpdateField(identity.Fingerprint());
  hash.UpdateField(input);
  std::string out = options.out;
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  std::unique_ptr<ShardBuild> build(new ShardBuild(std::move(out), HexEncode(hash.Finish())));
  if (fs::exists(build->out_)) {
    RETRO_ASSIGN_OR_RETURN(const bool found, build->ReadState(build->out_));
    if (found && build->complete()) return build;
    return absl::FailedPreconditionError(
        StrCat(build->out_, " is there already, and not a store that was built: name another folder or remove it"));
  }
  RETRO_RETURN_IF_ERROR(build->Begin(options, identity));
  return build;
}

absl::Status ShardBuild::Begin(const TargetOptions& options, const TargetIdentity& identity) {
  std::error_code error;
  fs::create_directories(unfinished(), error);
  RETRO_RETURN_IF_ERROR(FromSystem(error, "cannot make folder", unfinished()));
  RETRO_RETURN_IF_ERROR(ReadState(unfinished()).status());
  if (complete()) return Publish();  // killed just before
  LocalShardOptions shard;
  shard.store.path = unfinished();
  shard.store.cluster = identity.cluster;
  shard.store.store_id = identity.store_id;
  shard.store.shard = identity.shard;
  shard.store.shard_count = identity.shard_count;
  shard.index = options.index;
  RETRO_ASSIGN_OR_RETURN(shard_, LocalShard::Open(shard));
  return WriteState();
}

absl::StatusOr<bool> ShardBuild::ReadState(const std::string& folder) {
  const std::string path = folder + kStateFile;
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  if (absl::IsNotFound(bytes.status())) return false;
  RETRO_RETURN_IF_ERROR(bytes.status());
  try {
    const nlohmann::json json = nlohmann::json::parse(*bytes);
    if (json.at("version") != kStateVersion) {
      return absl::FailedPreconditionError(StrCat(path, " was written by another version of this program"));
    }
    if (json.at("input") != state_.input) {
      return absl::FailedPreconditionError(
          StrCat(folder, " was begun with other documents or options: name another folder or remove it"));
    }
    state_.place.source = json.at("source");
    state_.place.ordinal = json.at("ordinal");
    state_.place.id = json.at("id");
    state_.left_out = json.at("left_out");
    state_.complete = json.at("complete");
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError(StrCat(path, " is damaged: remove ", folder, " and build again"));
  }
  return true;
}

absl::Status ShardBuild::WriteState() const {
  const nlohmann::ordered_json json = {{"version", kStateVersion},      {"input", state_.input},
                                       {"source", state_.place.source}, {"ordinal", state_.place.ordinal},
                                       {"id", state_.place.id},         {"left_out", state_.left_out},
                                       {"complete", state_.complete}};
  return WriteFileAtomically(unfinished() + kStateFile, json.dump() + "\n");
}

// ---------------------------------------------------------------- writing

absl::Status ShardBuild::CreateCollection(const pb::CollectionSpec& spec) {
  collections_.push_back(spec);
  shardpb::CreateCollectionRequest request;
  *request.mutable_spec() = spec;
  return shard_->CreateCollection(request, CallContext()).status();
}

absl::Status ShardBuild::Write(DocumentGroup group) {
  state_.left_out += group.left_out;
  if (!group.changes.empty()) {
    const auto spec = std::find_if(collections_.begin(), collections_.end(),
                                   [&](const pb::CollectionSpec& one) { return one.name() == group.collection; });
    shardpb::WriteRequest request;
    request.set_collection(group.collection);
    request.set_embedder_fingerprint(spec->embedder_fingerprint());
    request.set_tokenizer_fingerprint(spec->tokenizer_fingerprint());
    for (shardpb::DocumentChange& change : group.changes) request.add_changes()->Swap(&change);
    RETRO_ASSIGN_OR_RETURN(const shardpb::WriteResponse response, shard_->Write(request, CallContext()));
    for (int i = 0; i < response.results_size(); ++i) {
      if (!response.results(i).has_error()) continue;
      ReportLeftOut(StrCat(request.changes(i).document().id(), ": ", response.results(i).error().message()));
      ++state_.left_out;
    }
    RETRO_RETURN_IF_ERROR(shard_->WaitForIndexes(kUnsealedMax));
  }
  state_.place = std::move(group.next);
  return WriteState();
}

absl::Status ShardBuild::Finish() {
  RETRO_RETURN_IF_ERROR(shard_->WaitForIndexes(0));
  shard_.reset();
  state_.complete = true;
  RETRO_RETURN_IF_ERROR(WriteState());
  return Publish();
}

absl::Status ShardBuild::Publish() const { return RenameDurably(unfinished(), out_); }

}  // namespace retro
