#include "trainer/neighbour_table.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/json_header.h"

namespace retro {
namespace {

constexpr char kFormat[] = "retro-neighbours";
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kNeighboursMax = 1024;

absl::Status CheckMadeFor(const std::string& folder, const NeighbourHeader& header, const DataSet& data) {
  const std::string path = folder + "/" + kNeighbourHeaderName;
  if (header.tokenizer_fingerprint != data.header().tokenizer_fingerprint) {
    return absl::FailedPreconditionError(StrCat(path, ": the neighbours were found with another tokenizer than ",
                                                data.folder(), " was made with: find them again"));
  }
  if (header.data_fingerprint != data.header().fingerprint || header.chunks != data.header().chunks) {
    return absl::FailedPreconditionError(
        StrCat(path, ": the neighbours are those of another token file than ", data.folder(), "'s: find them again"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteNeighbourHeader(const std::string& folder, const NeighbourHeader& header) {
  HeaderJson databases = HeaderJson::array();
  for (const DatabaseRef& ref : header.databases) {
    databases.push_back({{"path", ref.path}, {"fingerprint", ref.fingerprint}, {"chunks", ref.chunks}});
  }
  return WriteHeader(folder + "/" + kNeighbourHeaderName, {{"format", kFormat},
                                                           {"format_version", kFormatVersion},
                                                           {"k", header.k},
                                                           {"chunks", header.chunks},
                                                           {"data_fingerprint", header.data_fingerprint},
                                                           {"tokenizer_fingerprint", header.tokenizer_fingerprint},
                                                           {"embedder_fingerprint", header.embedder_fingerprint},
                                                           {"databases", databases}});
}

absl::StatusOr<NeighbourHeader> ReadNeighbourHeader(const std::string& folder) {
  const std::string path = folder + "/" + kNeighbourHeaderName;
  RETRO_ASSIGN_OR_RETURN(const HeaderJson json, ReadHeader(path, kFormat, kFormatVersion));
  NeighbourHeader header;
  HeaderFields fields(path, json);
  fields.Read("k", header.k);
  fields.Read("chunks", header.chunks);
  fields.Read("data_fingerprint", header.data_fingerprint);
  fields.Read("tokenizer_fingerprint", header.tokenizer_fingerprint);
  fields.Read("embedder_fingerprint", header.embedder_fingerprint);
  RETRO_RETURN_IF_ERROR(fields.status());
  const HeaderJson databases = json.value("databases", HeaderJson());
  if (header.k < 1 || header.k > kNeighboursMax || !databases.is_array() || databases.empty()) {
    return absl::InvalidArgumentError(
        StrCat(path, ": 'k' must be 1 to ", kNeighboursMax, " and 'databases' a list with one at least"));
  }
  for (const HeaderJson& item : databases) {
    DatabaseRef& ref = header.databases.emplace_back();
    if (!item.is_object()) return absl::InvalidArgumentError(StrCat(path, ": 'databases' must hold objects"));
    HeaderFields members(path, item);
    members.Read("path", ref.path);
    members.Read("fingerprint", ref.fingerprint);
    members.Read("chunks", ref.chunks);
    RETRO_RETURN_IF_ERROR(members.status());
  }
  return header;
}

absl::StatusOr<std::vector<DataSet>> OpenDatabases(const std::string& folder, const std::vector<DatabaseRef>& refs) {
  std::vector<DataSet> databases;
  for (const DatabaseRef& ref : refs) {
    const std::string path = (std::filesystem::path(folder) / ref.path).lexically_normal().string();
    RETRO_ASSIGN_OR_RETURN(DataSet database, DataSet::Open(path));
    if (database.header().fingerprint != ref.fingerprint || database.header().chunks != ref.chunks) {
      return absl::FailedPreconditionError(
          StrCat(path, " is another data set than when neighbours were found in it: find them again"));
    }
    databases.push_back(std::move(database));
  }
  return databases;
}

NeighbourTable::NeighbourTable(NeighbourHeader header, MappedFile file, std::vector<DataSet> databases)
    : header_(std::move(header)),
      file_(std::move(file)),
      databases_(std::move(databases)),
      first_({0}),
      rows_(reinterpret_cast<const uint32_t*>(file_.bytes().data())) {
  for (const DataSet& database : databases_) first_.push_back(first_.back() + database.header().chunks);
}

absl::Status NeighbourTable::CheckRow(const DataSet& data, uint64_t chunk) const {
  for (const uint32_t neighbour : Of(chunk)) {
    if (neighbour == kNoNeighbour) continue;
    if (neighbour >= numbers()) {
      return absl::InvalidArgumentError(
          StrCat("chunk ", chunk, " has neighbour ", neighbour, ", the databases have ", numbers()));
    }
    if (IsOfDocument(neighbour, data.chunks()[chunk].document)) {
      return absl::InvalidArgumentError(StrCat("chunk ", chunk, " has neighbour ", neighbour, " of its own document"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<NeighbourTable> NeighbourTable::Open(const std::string& folder, const DataSet& data) {
  const std::string path = folder + "/" + kNeighboursName;
  RETRO_ASSIGN_OR_RETURN(NeighbourHeader header, ReadNeighbourHeader(folder));
  RETRO_RETURN_IF_ERROR(CheckMadeFor(folder, header, data));
  RETRO_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  RETRO_RETURN_IF_ERROR(CheckFileSize(path, file.bytes().size(), header.chunks * header.k * sizeof(uint32_t)));
  RETRO_ASSIGN_OR_RETURN(std::vector<DataSet> databases, OpenDatabases(folder, header.databases));
  NeighbourTable table(std::move(header), std::move(file), std::move(databases));
  for (const DataSet& database : table.databases_) {
    RETRO_ASSIGN_OR_RETURN(table.same_.emplace_back(), SameDocuments(data, database));
  }
  for (uint64_t chunk = 0; chunk < data.header().chunks; ++chunk) {
    const absl::Status row = table.CheckRow(data, chunk);
    if (!row.ok()) return absl::Status(row.code(), StrCat(path, ": ", MessageOf(row)));
  }
  return table;
}

std::string NeighbourTable::Digest() const { return HexEncode(Sha256Bytes(file_.bytes())); }

std::pair<size_t, uint64_t> NeighbourTable::Locate(uint32_t neighbour) const {
  const size_t database = std::upper_bound(first_.begin(), first_.end(), neighbour) - first_.begin() - 1;
  return {database, neighbour - first_[database]};
}

bool NeighbourTable::IsOfDocument(uint32_t neighbour, uint64_t document) const {
  const auto [place, chunk] = Locate(neighbour);
  return std::ranges::find(same_[place][document], databases_[place].chunks()[chunk].document) !=
         same_[place][document].end();
}

void NeighbourTable::CopyTokens(uint32_t neighbour, TokenId pad_id, std::span<TokenId> out) const {
  const auto [place, chunk] = Locate(neighbour);
  CopyNeighbourTokens(databases_[place], chunk, pad_id, out);
}

void CopyNeighbourTokens(const DataSet& database, uint64_t chunk, TokenId pad_id, std::span<TokenId> out) {
  std::ranges::fill(out, pad_id);
  const uint64_t end = database.end_chunk(database.chunks()[chunk].document);
  const size_t half = out.size() / 2;
  for (uint64_t part = 0; part < 2 && chunk + part < end; ++part) {
    const ChunkRow& row = database.chunks()[chunk + part];
    database.CopyTokens(row.first_token, std::min<uint64_t>(row.tokens, half), out.data() + part * half);
  }
}

}  // namespace retro
