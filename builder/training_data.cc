#include "builder/training_data.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/store/layout.h"
#include "trainer/append_file.h"
#include "trainer/chunk_vectors.h"
#include "trainer/data_set_writer.h"

namespace retro {
namespace {

constexpr std::chrono::seconds kCommitEvery{2};

// "SOURCE SLOT ID", as the data set's writer keeps it.
std::string FormatPlace(const SourcePlace& place) { return StrCat(place.source, " ", place.ordinal, " ", place.id); }

SourcePlace ParsePlace(const std::string& text) {
  SourcePlace place;
  const char* const end = text.data() + text.size();
  const auto source = std::from_chars(text.data(), end, place.source);
  if (source.ptr == end) return place;
  const auto ordinal = std::from_chars(source.ptr + 1, end, place.ordinal);
  if (ordinal.ptr != end) place.id.assign(ordinal.ptr + 1, end);
  return place;
}

class Export {
 public:
  Export(const StoredShards& shards, const pb::CollectionSpec& spec, const TrainingDataOptions& options,
         DataSetWriter writer, const Report& report)
      : spec_(spec),
        options_(options),
        writer_(std::move(writer)),
        source_(shards, {.first_slot = 0, .last_slot = kSlotCount - 1, .collections = {spec.name()}}),
        report_(report) {}

  absl::Status Run() {
    // Killed between the two: the documents are in their place, the vectors are not.
    if (!writer_.complete()) RETRO_RETURN_IF_ERROR(WriteDocuments());
    return PublishVectors();
  }

 private:
  std::string Partial() const { return StrCat(options_.out, "/", kPartialFolder); }

  absl::Status WriteDocuments() {
    RETRO_ASSIGN_OR_RETURN(vectors_, AppendFile::Open(StrCat(Partial(), "/", kVectorsName),
                                                      writer_.progress().chunks * spec_.dimension() * kHalfBytes));
    source_.GoOnAt(ParsePlace(writer_.progress().place));
    auto committed = std::chrono::steady_clock::now();
    while (true) {
      RETRO_ASSIGN_OR_RETURN(const std::optional<DocumentGroup> group, source_.Next());
      if (!group.has_value()) break;
      for (const shardpb::DocumentChange& document : group->changes) RETRO_RETURN_IF_ERROR(Add(document));
      writer_.progress().place = FormatPlace(group->next);
      report_(StrCat(options_.out, ": ", writer_.progress().documents, " documents, ", writer_.progress().chunks,
                     " chunks"));
      if (std::chrono::steady_clock::now() - committed < kCommitEvery) continue;
      RETRO_RETURN_IF_ERROR(Commit());
      committed = std::chrono::steady_clock::now();
    }
    RETRO_RETURN_IF_ERROR(Commit());
    return writer_.Publish();
  }

  absl::Status Add(const shardpb::DocumentChange& change) {
    std::vector<TokenId> tokens;
    std::vector<uint32_t> sizes;
    std::string vectors;
    for (const shardpb::ChunkContent& chunk : change.chunks()) {
      tokens.insert(tokens.end(), chunk.token_ids().begin(), chunk.token_ids().end());
      sizes.push_back(static_cast<uint32_t>(chunk.token_ids_size()));
      vectors += chunk.vector_fp16();
    }
    const pb::Document& document = change.document();
    RETRO_RETURN_IF_ERROR(
        writer_.Add({document.id(), document.title(), document.source(), ""}, std::move(tokens), sizes));
    return vectors_->Append(vectors);
  }

  absl::Status Commit() {
    RETRO_RETURN_IF_ERROR(vectors_->Sync());
    return writer_.Commit();
  }

  absl::Status PublishVectors() {
    if (ReadFile(StrCat(options_.out, "/", kVectorHeaderName)).ok()) return absl::OkStatus();
    RETRO_ASSIGN_OR_RETURN(const DataHeader data, ReadDataHeader(options_.out));
    RETRO_RETURN_IF_ERROR(
        WriteVectorHeader(Partial(), {.dimension = spec_.dimension(),
                                      .chunks = data.chunks,
                                      .data_fingerprint = data.fingerprint,
                                      .embedder_fingerprint = HexEncode(spec_.embedder_fingerprint())}));
    if (std::filesystem::exists(StrCat(Partial(), "/", kVectorsName))) {
      RETRO_RETURN_IF_ERROR(PublishFile(options_.out, kVectorsName));
    }
    return PublishFile(options_.out, kVectorHeaderName);
  }

  const pb::CollectionSpec& spec_;
  const TrainingDataOptions& options_;
  DataSetWriter writer_;
  StoredDocuments source_;
  const Report& report_;
  std::optional<AppendFile> vectors_;
};

}  // namespace

absl::Status WriteTrainingData(const StoredShards& shards, const TrainingDataOptions& options, const Report& report) {
  const auto spec = std::find_if(shards.collections().begin(), shards.collections().end(),
                                 [&](const pb::CollectionSpec& one) { return one.name() == options.collection; });
  if (spec == shards.collections().end()) {
    return absl::NotFoundError(StrCat("the store has no collection \"", options.collection, "\""));
  }
  RETRO_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(options.tokenizer));
  if (tokenizer->fingerprint() != spec->tokenizer_fingerprint()) {
    return absl::FailedPreconditionError(StrCat(options.tokenizer,
                                                " is not the tokenizer that cut the collection (fingerprint ",
                                                HexEncode(spec->tokenizer_fingerprint()), "): name that one"));
  }
  RETRO_ASSIGN_OR_RETURN(const DataHeader header, HeaderOf(*tokenizer, options.tokenizer, spec->chunk_size()));
  Sha256 input;
  input.UpdateField(shards.Fingerprint());
  input.UpdateField(options.collection);
  RETRO_ASSIGN_OR_RETURN(DataSetWriter writer, DataSetWriter::Open(options.out, header, HexEncode(input.Finish())));
  return Export(shards, *spec, options, std::move(writer), report).Run();
}

}  // namespace retro
