#include "trainer/data_set.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <sstream>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"
#include "trainer/json_header.h"

namespace retro {
namespace {

constexpr uint32_t kShortByMax = 3;  // tokens of a character that a chunk ends before, see CutIntoChunks

constexpr char kFormat[] = "retro-training-data";
constexpr int64_t kFormatVersion = 1;
constexpr uint64_t kIdMax = uint64_t{1} << 31;

absl::Status CheckHeader(const std::string& path, const DataHeader& header) {
  if (header.chunk_length < 4 || header.chunk_length > (1 << 16) || header.vocabulary < 1 ||
      header.vocabulary > static_cast<int64_t>(kIdMax) || header.documents > kIdMax || header.chunks > kIdMax) {
    return absl::InvalidArgumentError(StrCat(path, ": sizes that no data set has: prepare it again"));
  }
  return absl::OkStatus();
}

// Each line of documents.jsonl, which has an "id".
absl::Status ReadList(const DataSet& data, const std::function<void(const HeaderJson& line)>& use) {
  const std::string path = data.folder() + "/" + kDocumentListName;
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::istringstream lines(text);
  uint64_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const HeaderJson json = HeaderJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("id") || !json["id"].is_string()) {
      return absl::InvalidArgumentError(StrCat(path, ": line ", count + 1, " has no 'id'"));
    }
    use(json);
  }
  if (count != data.header().documents) {
    return absl::InvalidArgumentError(StrCat(path, " has ", count, " lines, not ", data.header().documents));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteDataHeader(const std::string& folder, const DataHeader& header) {
  const HeaderJson json = {{"format", kFormat},
                           {"format_version", kFormatVersion},
                           {"chunk_length", header.chunk_length},
                           {"vocabulary", header.vocabulary},
                           {"token_bytes", header.token_bytes()},
                           {"pad_id", header.pad_id},
                           {"eos_id", header.eos_id},
                           {"documents", header.documents},
                           {"chunks", header.chunks},
                           {"tokens", header.tokens},
                           {"tokenizer_fingerprint", header.tokenizer_fingerprint},
                           {"fingerprint", header.fingerprint}};
  return WriteHeader(folder + "/" + kDataHeaderName, json);
}

absl::StatusOr<DataHeader> ReadDataHeader(const std::string& folder) {
  const std::string path = folder + "/" + kDataHeaderName;
  RETRO_ASSIGN_OR_RETURN(const HeaderJson json, ReadHeader(path, kFormat, kFormatVersion));
  DataHeader header;
  HeaderFields fields(path, json);
  fields.Read("chunk_length", header.chunk_length);
  fields.Read("vocabulary", header.vocabulary);
  fields.Read("pad_id", header.pad_id);
  fields.Read("eos_id", header.eos_id);
  fields.Read("documents", header.documents);
  fields.Read("chunks", header.chunks);
  fields.Read("tokens", header.tokens);
  fields.Read("tokenizer_fingerprint", header.tokenizer_fingerprint);
  fields.Read("fingerprint", header.fingerprint);
  RETRO_RETURN_IF_ERROR(fields.status());
  RETRO_RETURN_IF_ERROR(CheckHeader(path, header));
  return header;
}

DataSet::DataSet(std::string folder, DataHeader header, MappedFile tokens, MappedFile documents, MappedFile chunks)
    : folder_(std::move(folder)),
      header_(std::move(header)),
      tokens_file_(std::move(tokens)),
      documents_file_(std::move(documents)),
      chunks_file_(std::move(chunks)),
      documents_(reinterpret_cast<const DocumentRow*>(documents_file_.bytes().data())),
      chunks_(reinterpret_cast<const ChunkRow*>(chunks_file_.bytes().data())) {}

absl::Status CheckFileSize(const std::string& path, uint64_t size, uint64_t expected) {
  if (size == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat(path, " has ", size, " bytes where its header asks for ", expected,
                                           ": it is truncated or another's, copy or prepare it again"));
}

absl::StatusOr<DataSet> DataSet::Open(const std::string& folder) {
  RETRO_ASSIGN_OR_RETURN(DataHeader header, ReadDataHeader(folder));
  RETRO_ASSIGN_OR_RETURN(MappedFile tokens, MappedFile::Open(folder + "/" + kTokensName));
  RETRO_ASSIGN_OR_RETURN(MappedFile documents, MappedFile::Open(folder + "/" + kDocumentsName));
  RETRO_ASSIGN_OR_RETURN(MappedFile chunks, MappedFile::Open(folder + "/" + kChunksName));
  DataSet data(folder, std::move(header), std::move(tokens), std::move(documents), std::move(chunks));
  RETRO_RETURN_IF_ERROR(data.Check());
  return data;
}

absl::Status DataSet::Check() const {
  const auto size = [&](const char* name, const MappedFile& file, uint64_t expected) {
    return CheckFileSize(folder_ + "/" + name, file.bytes().size(), expected);
  };
  RETRO_RETURN_IF_ERROR(size(kTokensName, tokens_file_, header_.tokens * header_.token_bytes()));
  RETRO_RETURN_IF_ERROR(size(kDocumentsName, documents_file_, (header_.documents + 1) * sizeof(DocumentRow)));
  RETRO_RETURN_IF_ERROR(size(kChunksName, chunks_file_, header_.chunks * sizeof(ChunkRow)));
  for (uint64_t d = 0; d <= header_.documents; ++d) {
    const DocumentRow& row = documents_[d];
    const DocumentRow previous = d == 0 ? DocumentRow{0, 0} : documents_[d - 1];
    const uint64_t text = d == 0 ? 0 : row.first_token - previous.first_token - 1;
    const bool rises = d == 0 ? row.first_token == 0 && row.first_chunk == 0
                              : row.first_token > previous.first_token && row.first_chunk >= previous.first_chunk &&
                                    (text > 0) == (row.first_chunk > previous.first_chunk);
    if (!rises || row.first_token > header_.tokens || row.first_chunk > header_.chunks) {
      return absl::InvalidArgumentError(
          StrCat(folder_, "/", kDocumentsName, ": row ", d, " is damaged: copy or prepare it again"));
    }
  }
  for (uint64_t c = 0; c < header_.chunks; ++c) {
    if (!Follows(c)) {
      return absl::InvalidArgumentError(
          StrCat(folder_, "/", kChunksName, ": row ", c, " is damaged: copy or prepare it again"));
    }
  }
  return absl::OkStatus();
}

bool DataSet::Follows(uint64_t chunk) const {
  const ChunkRow& row = chunks_[chunk];
  const auto length = static_cast<uint32_t>(header_.chunk_length);
  if (row.document >= header_.documents || chunk < first_chunk(row.document) || chunk >= end_chunk(row.document)) {
    return false;
  }
  const uint64_t begin = documents_[row.document].first_token;
  const bool is_first = chunk == first_chunk(row.document);
  const uint64_t expected = is_first ? begin : chunks_[chunk - 1].first_token + chunks_[chunk - 1].tokens;
  if (row.first_token != expected || row.tokens == 0 || row.tokens > length) return false;
  const bool is_last = chunk + 1 == end_chunk(row.document);
  return is_last ? row.first_token + row.tokens == begin + text_tokens(row.document)
                 : row.tokens + kShortByMax >= length;
}

bool DataSet::IsEvenlyCut(uint64_t document) const {
  for (uint64_t c = first_chunk(document); c + 1 < end_chunk(document); ++c) {
    if (chunks_[c].tokens != header_.chunk_length) return false;
  }
  return true;
}

void DataSet::CopyTokens(uint64_t first, uint64_t count, TokenId* out) const {
  const char* bytes = tokens_file_.bytes().data();
  if (header_.token_bytes() == sizeof(TokenId)) {
    std::memcpy(out, bytes + first * sizeof(TokenId), count * sizeof(TokenId));
    return;
  }
  const auto* ids = reinterpret_cast<const uint16_t*>(bytes) + first;
  std::copy(ids, ids + count, out);
}

std::vector<TokenId> DataSet::ChunkTokens(uint64_t chunk) const {
  std::vector<TokenId> ids(chunks_[chunk].tokens);
  CopyTokens(chunks_[chunk].first_token, ids.size(), ids.data());
  return ids;
}

absl::StatusOr<std::vector<std::string>> DocumentIds(const DataSet& data) {
  std::vector<std::string> ids;
  RETRO_RETURN_IF_ERROR(ReadList(data, [&](const HeaderJson& line) { ids.push_back(line["id"].get<std::string>()); }));
  return ids;
}

absl::StatusOr<std::vector<std::string>> DocumentFamilies(const DataSet& data) {
  std::vector<std::string> families;
  RETRO_RETURN_IF_ERROR(ReadList(data, [&](const HeaderJson& line) {
    const auto family = line.find("family");
    families.push_back(family != line.end() && family->is_string() ? family->get<std::string>() : "");
  }));
  return families;
}

absl::StatusOr<std::vector<std::vector<uint64_t>>> SameDocuments(const DataSet& data, const DataSet& database) {
  std::vector<std::vector<uint64_t>> same(data.header().documents);
  if (database.header().fingerprint == data.header().fingerprint) {
    for (uint64_t d = 0; d < same.size(); ++d) same[d] = {d};
    return same;
  }
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> ids, DocumentIds(data));
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> theirs, DocumentIds(database));
  std::unordered_multimap<std::string_view, uint64_t> by_id;
  for (uint64_t d = 0; d < theirs.size(); ++d) by_id.emplace(theirs[d], d);
  for (uint64_t d = 0; d < ids.size(); ++d) {
    if (ids[d].empty()) continue;
    const auto [first, end] = by_id.equal_range(ids[d]);
    for (auto found = first; found != end; ++found) same[d].push_back(found->second);
  }
  return same;
}

absl::StatusOr<std::string> DataFingerprint(const std::string& folder) {
  Sha256 hash;
  for (const char* name : {kTokensName, kDocumentsName}) {
    RETRO_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(folder + "/" + name));
    hash.UpdateField(file.bytes());
  }
  return HexEncode(hash.Finish());
}

}  // namespace retro
