// retro-build reshard and reembed: stores to the store and index of one shard of another store.
#include <memory>
#include <string>
#include <vector>

#include "builder/command.h"
#include "builder/stored_documents.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

struct Options {
  TargetOptions target;
  ContentOptions content;  // of reembed alone
  std::vector<std::string> stores;
};

// `content`: null to take over chunks and vectors.
absl::Status BuildFromStores(const Options& options, ContentMaker* content) {
  RETRO_ASSIGN_OR_RETURN(const TargetIdentity identity, ReadTargetIdentity(options.target));
  RETRO_ASSIGN_OR_RETURN(const StoredShards shards, StoredShards::Open(options.stores));
  if (identity.store_id == shards.store_id()) {
    return FieldError("--cluster-file",
                      "has the store_id of the store that is read: give the new one another, as consistency tokens of "
                      "the old one do not hold for it");
  }
  Sha256 input;
  input.UpdateField(content == nullptr ? "reshard" : "reembed");
  input.UpdateField(shards.Fingerprint());
  StoredDocumentsOptions documents;
  documents.first_slot = identity.first_slot;
  documents.last_slot = identity.last_slot;
  documents.with_chunks = content == nullptr;
  std::vector<pb::CollectionSpec> specs;
  for (const pb::CollectionSpec& stored : shards.collections()) {
    documents.collections.push_back(stored.name());
    const pb::CollectionSpec& spec = specs.emplace_back(content == nullptr ? stored : content->Spec(stored.name()));
    input.UpdateField(spec.tokenizer_fingerprint());
    input.UpdateField(spec.embedder_fingerprint());
    input.UpdateField(StrCat(spec.chunk_size()));
  }
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<ShardBuild> build,
                         ShardBuild::Open(options.target, identity, input.Finish()));
  for (const pb::CollectionSpec& spec : specs) {
    if (!build->complete()) RETRO_RETURN_IF_ERROR(build->CreateCollection(spec));
  }
  StoredDocuments source(shards, std::move(documents));
  return RunBuild(*build, source, content, options.target.out);
}

}  // namespace

TrainCommand AddReshardCommand(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand(
      "reshard", "The shards of a store to one shard of another number of them; goes on if killed");
  app->footer("\nChunks and vectors are taken over as they are. One process builds one shard of the new store.");
  AddStoresArgument(*app, options->stores);
  AddTargetFlags(*app, options->target);
  return {app, [options] { return BuildFromStores(*options, /*content=*/nullptr); }};
}

TrainCommand AddReembedCommand(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand(
      "reembed", "The shards of a store to one shard of another, cut and embedded anew; goes on if killed");
  app->footer("\nAll collections are cut by the one tokenizer and embedded by the one embedder.");
  AddStoresArgument(*app, options->stores);
  AddTargetFlags(*app, options->target);
  AddContentFlags(*app, options->content);
  return {app, [options]() -> absl::Status {
            RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<ContentMaker> content, ContentMaker::Load(options->content));
            return BuildFromStores(*options, content.get());
          }};
}

}  // namespace retro
