#include "trainer/prepare.h"

#include <filesystem>
#include <memory>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/device.h"
#include "retriever_service/embed/bert_embedder.h"
#include "trainer/chunk_vectors.h"
#include "trainer/data_set.h"
#include "trainer/nearest_chunks.h"
#include "trainer/neighbour_table.h"

namespace retro {
namespace {

constexpr size_t kBatchTextsCpu = 32;
constexpr size_t kBatchTextsDevice = 1024;

// One vector a chunk serves as query and as passage.
absl::Status CheckNoPrefixes(const Embedder& embedder, const std::string& folder) {
  if (embedder.Encode("a", TextKind::kQuery) == embedder.Encode("a", TextKind::kPassage)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(folder, " marks queries by a prefix, which is not searched with here: give --neighbours-from"));
}

absl::Status Embed(const PrepareOptions& options, const DataSet& data, const Report& report) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(options.tokens.tokenizer));
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<BertEmbedder> embedder,
                         BertEmbedder::Load(options.embedder, {.device = options.device}));
  RETRO_RETURN_IF_ERROR(CheckNoPrefixes(*embedder, options.embedder));
  const bool cpu = options.device == "cpu";
  return EmbedChunks(data, *tokenizer, *embedder,
                     {.threads = options.tokens.threads,
                      .batch_texts = cpu ? kBatchTextsCpu : kBatchTextsDevice,
                      .fingerprint = options.embedder_fingerprint},
                     report);
}

absl::Status Search(const PrepareOptions& options, const DataSet& data, const Report& report) {
  RETRO_ASSIGN_OR_RETURN(const at::Device device, OpenDevice(options.device));
  std::vector<DataSet> opened;
  for (const std::string& folder : options.databases) {
    RETRO_ASSIGN_OR_RETURN(DataSet database, DataSet::Open(folder));
    if (database.header().tokenizer_fingerprint != data.header().tokenizer_fingerprint ||
        database.header().chunk_length != data.header().chunk_length) {
      return absl::FailedPreconditionError(StrCat(folder, " was made with another tokenizer or chunk length"));
    }
    opened.push_back(std::move(database));
  }
  std::vector<const DataSet*> databases;
  databases.reserve(opened.size());
  for (const DataSet& database : opened) databases.push_back(&database);
  if (databases.empty()) databases.push_back(&data);
  return FindNearestChunks(data, databases, {.k = options.k, .device = device}, report);
}

// Takes over a table that was made elsewhere, after the checks that its reader makes.
absl::Status TakeOver(const std::string& from, const DataSet& data) {
  RETRO_ASSIGN_OR_RETURN(const NeighbourTable table, NeighbourTable::Open(from, data));
  RETRO_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(from + "/" + kNeighboursName));
  NeighbourHeader header = table.header();
  for (DatabaseRef& ref : header.databases) {
    const std::filesystem::path place = std::filesystem::weakly_canonical(std::filesystem::path(from) / ref.path);
    ref.path = place.lexically_relative(std::filesystem::weakly_canonical(data.folder())).string();
  }
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(data.folder() + "/" + kNeighboursName, file.bytes()));
  return WriteNeighbourHeader(data.folder(), header);
}

}  // namespace

absl::Status Prepare(const PrepareOptions& options, const Report& report) {
  const bool is_there = options.tokens.documents.empty();
  if (!is_there) RETRO_RETURN_IF_ERROR(WriteTokenFiles(options.tokens, report));
  RETRO_ASSIGN_OR_RETURN(const DataSet data, DataSet::Open(options.tokens.out));
  if (!options.neighbours_from.empty()) return TakeOver(options.neighbours_from, data);
  if (!options.embedder.empty()) {
    RETRO_RETURN_IF_ERROR(Embed(options, data, report));
  } else if (!is_there) {
    return absl::OkStatus();
  }
  return Search(options, data, report);
}

}  // namespace retro
