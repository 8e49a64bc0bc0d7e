#include "trainer/data_set_writer.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/json_header.h"

namespace retro {
namespace {

constexpr char kStateName[] = "state.json";
constexpr char kFormat[] = "retro-prepare-state";
constexpr int64_t kFormatVersion = 1;

absl::Status WriteState(const std::string& path, const DataSetProgress& state) {
  return WriteHeader(path, {{"format", kFormat},
                            {"format_version", kFormatVersion},
                            {"options", state.options},
                            {"files", state.sources},
                            {"documents", state.documents},
                            {"chunks", state.chunks},
                            {"tokens", state.tokens},
                            {"list_bytes", state.list_bytes},
                            {"left_out", state.left_out},
                            {"place", state.place},
                            {"inputs", state.inputs}});
}

absl::StatusOr<DataSetProgress> ReadState(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const HeaderJson json, ReadHeader(path, kFormat, kFormatVersion));
  DataSetProgress state;
  HeaderFields fields(path, json);
  fields.Read("options", state.options);
  fields.Read("files", state.sources);
  fields.Read("documents", state.documents);
  fields.Read("chunks", state.chunks);
  fields.Read("tokens", state.tokens);
  fields.Read("list_bytes", state.list_bytes);
  fields.Read("left_out", state.left_out);
  // Not in what older versions began.
  state.place = json.value("place", "");
  if (const auto inputs = json.find("inputs"); inputs != json.end() && inputs->is_object()) {
    for (const auto& [path, was] : inputs->items()) state.inputs[path] = was.is_string() ? was.get<std::string>() : "";
  }
  RETRO_RETURN_IF_ERROR(fields.status());
  return state;
}

template <typename T>
std::string_view BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace

absl::Status MakeFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return ErrnoStatus(error.value(), "cannot make folder", folder);
  return absl::OkStatus();
}

absl::Status PublishFile(const std::string& folder, const std::string& name) {
  const std::string from = StrCat(folder, "/", kPartialFolder, "/", name);
  if (std::rename(from.c_str(), StrCat(folder, "/", name).c_str()) != 0) {
    return ErrnoStatus(errno, "cannot move into place", from);
  }
  return absl::OkStatus();
}

absl::StatusOr<DataHeader> HeaderOf(const Tokenizer& tokenizer, const std::string& path, int64_t chunk_length) {
  if (tokenizer.eos_id() < 0 || tokenizer.pad_id() < 0) {
    return absl::InvalidArgumentError(StrCat(path, ": a vocabulary without eos or pad cannot be trained"));
  }
  return DataHeader{.chunk_length = chunk_length,
                    .vocabulary = tokenizer.vocabulary_size(),
                    .pad_id = tokenizer.pad_id(),
                    .eos_id = tokenizer.eos_id(),
                    .tokenizer_fingerprint = HexEncode(tokenizer.fingerprint())};
}

absl::StatusOr<DataSetWriter> DataSetWriter::Open(const std::string& folder, const DataHeader& header,
                                                  const std::string& options) {
  DataSetWriter writer(folder, header);
  writer.progress_.options = options;
  const absl::StatusOr<DataHeader> done = ReadDataHeader(folder);
  if (!absl::IsNotFound(done.status())) {
    RETRO_RETURN_IF_ERROR(done.status());
    const absl::StatusOr<DataSetProgress> state = ReadState(writer.Partial(kStateName));
    writer.complete_ = state.ok() && state->options == options;
    if (writer.complete_) {
      writer.progress_ = *state;
      return writer;
    }
    return absl::FailedPreconditionError(
        StrCat(folder, " holds a data set of other documents or options: name another folder or remove it"));
  }
  RETRO_RETURN_IF_ERROR(MakeFolder(writer.Partial("")));
  RETRO_RETURN_IF_ERROR(writer.Resume(options));
  RETRO_RETURN_IF_ERROR(writer.OpenFiles());
  return writer;
}

std::string DataSetWriter::Partial(const std::string& name) const {
  return StrCat(folder_, "/", kPartialFolder, "/", name);
}

absl::Status DataSetWriter::Resume(const std::string& options) {
  const absl::StatusOr<DataSetProgress> found = ReadState(Partial(kStateName));
  if (absl::IsNotFound(found.status())) return absl::OkStatus();
  RETRO_RETURN_IF_ERROR(found.status());
  if (found->options != options) {
    return absl::FailedPreconditionError(
        StrCat(folder_, " was begun with other documents or options: name another folder or remove it"));
  }
  progress_ = *found;
  return absl::OkStatus();
}

absl::Status DataSetWriter::OpenFiles() {
  const auto open = [&](const char* name, uint64_t size, std::optional<AppendFile>& file) -> absl::Status {
    // Killed while it published: what is in its place already goes back.
    std::error_code absent;
    std::filesystem::rename(folder_ + "/" + name, Partial(name), absent);
    RETRO_ASSIGN_OR_RETURN(file, AppendFile::Open(Partial(name), size));
    return absl::OkStatus();
  };
  RETRO_RETURN_IF_ERROR(open(kTokensName, progress_.tokens * header_.token_bytes(), tokens_));
  RETRO_RETURN_IF_ERROR(open(kDocumentsName, progress_.documents * sizeof(DocumentRow), documents_));
  RETRO_RETURN_IF_ERROR(open(kChunksName, progress_.chunks * sizeof(ChunkRow), chunks_));
  return open(kDocumentListName, progress_.list_bytes, list_);
}

absl::Status DataSetWriter::Add(const DocumentLine& line, std::vector<TokenId> tokens,
                                std::span<const uint32_t> chunks) {
  const std::vector<DocumentRow> row = {{progress_.tokens, progress_.chunks}};
  std::vector<ChunkRow> rows;
  uint64_t first = progress_.tokens;
  for (const uint32_t count : chunks) {
    rows.push_back({first, static_cast<uint32_t>(progress_.documents), count});
    first += count;
  }
  if (progress_.chunks + rows.size() >= std::numeric_limits<int32_t>::max()) {
    return absl::ResourceExhaustedError("more chunks than a data set can number (2^31): make several");
  }
  tokens.push_back(header_.eos_id);
  RETRO_RETURN_IF_ERROR(AppendTokens(tokens));
  RETRO_RETURN_IF_ERROR(documents_->Append(BytesOf(row)));
  RETRO_RETURN_IF_ERROR(chunks_->Append(BytesOf(rows)));
  HeaderJson json = {{"id", line.id}, {"title", line.title}, {"source", line.source}};
  if (!line.family.empty()) json["family"] = line.family;
  RETRO_RETURN_IF_ERROR(list_->Append(json.dump() + "\n"));
  progress_.tokens += tokens.size();
  progress_.chunks += rows.size();
  ++progress_.documents;
  return absl::OkStatus();
}

absl::Status DataSetWriter::AppendTokens(const std::vector<TokenId>& ids) {
  if (header_.token_bytes() == sizeof(TokenId)) return tokens_->Append(BytesOf(ids));
  return tokens_->Append(BytesOf(std::vector<uint16_t>(ids.begin(), ids.end())));
}

absl::Status DataSetWriter::Commit() {
  for (std::optional<AppendFile>* file : {&tokens_, &documents_, &chunks_, &list_}) {
    RETRO_RETURN_IF_ERROR((*file)->Sync());
  }
  progress_.list_bytes = list_->size();
  return WriteState(Partial(kStateName), progress_);
}

absl::Status DataSetWriter::Publish() {
  if (progress_.documents == 0) return absl::InvalidArgumentError("there is no document with text");
  RETRO_RETURN_IF_ERROR(documents_->Append(BytesOf(std::vector<DocumentRow>{{progress_.tokens, progress_.chunks}})));
  RETRO_RETURN_IF_ERROR(documents_->Sync());
  RETRO_ASSIGN_OR_RETURN(header_.fingerprint, DataFingerprint(Partial("")));
  header_.documents = progress_.documents;
  header_.chunks = progress_.chunks;
  header_.tokens = progress_.tokens;
  RETRO_RETURN_IF_ERROR(WriteDataHeader(Partial(""), header_));
  for (const char* name : {kTokensName, kDocumentsName, kChunksName, kDocumentListName, kDataHeaderName}) {
    RETRO_RETURN_IF_ERROR(PublishFile(folder_, name));
  }
  return absl::OkStatus();
}

}  // namespace retro
