#include "trainer/data_set.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"
#include "trainer/json_header.h"

namespace retro {
namespace {

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
  DocumentRow previous = {0, 0};
  for (uint64_t d = 0; d <= header_.documents; ++d) {
    const DocumentRow& row = documents_[d];
    const bool first = d == 0;
    const uint64_t text = first ? 0 : row.first_token - previous.first_token - 1;
    const auto length = static_cast<uint64_t>(header_.chunk_length);
    const bool rises = first ? row.first_token == 0 && row.first_chunk == 0
                             : row.first_token > previous.first_token &&
                                   row.first_chunk == previous.first_chunk + (text + length - 1) / length;
    if (!rises || row.first_token > header_.tokens || row.first_chunk > header_.chunks) {
      return absl::InvalidArgumentError(
          StrCat(folder_, "/", kDocumentsName, ": row ", d, " is damaged: copy or prepare it again"));
    }
    previous = row;
  }
  for (uint64_t c = 0; c < header_.chunks; ++c) {
    const ChunkRow& row = chunks_[c];
    const bool known =
        row.document < header_.documents && c >= first_chunk(row.document) && c < end_chunk(row.document);
    const uint64_t before = known ? (c - first_chunk(row.document)) * header_.chunk_length : 0;
    if (!known || row.first_token != documents_[row.document].first_token + before || row.tokens == 0 ||
        row.tokens != std::min<uint64_t>(header_.chunk_length, text_tokens(row.document) - before)) {
      return absl::InvalidArgumentError(
          StrCat(folder_, "/", kChunksName, ": row ", c, " is damaged: copy or prepare it again"));
    }
  }
  return absl::OkStatus();
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

absl::StatusOr<std::string> DataFingerprint(const std::string& folder) {
  Sha256 hash;
  for (const char* name : {kTokensName, kDocumentsName}) {
    RETRO_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(folder + "/" + name));
    hash.UpdateField(file.bytes());
  }
  return HexEncode(hash.Finish());
}

}  // namespace retro
