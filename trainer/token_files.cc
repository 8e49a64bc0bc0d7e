#include "trainer/token_files.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/tokenizer/tokenizer.h"
#include "trainer/append_file.h"
#include "trainer/document_lines.h"
#include "trainer/json_header.h"
#include "trainer/near_duplicates.h"
#include "trainer/parallel.h"

namespace retro {
namespace {

constexpr char kStateName[] = "state.json";
constexpr char kFormat[] = "retro-prepare-state";
constexpr int64_t kFormatVersion = 1;
constexpr size_t kBatchDocuments = 256;

// How far a folder is: what is on disk up to the last whole file of documents.
struct State {
  std::string options;  // hash of what must not change between two runs
  uint64_t files = 0;
  uint64_t documents = 0;
  uint64_t chunks = 0;
  uint64_t tokens = 0;
  uint64_t list_bytes = 0;
  uint64_t left_out = 0;
};

absl::Status WriteState(const std::string& path, const State& state) {
  return WriteHeader(path, {{"format", kFormat},
                            {"format_version", kFormatVersion},
                            {"options", state.options},
                            {"files", state.files},
                            {"documents", state.documents},
                            {"chunks", state.chunks},
                            {"tokens", state.tokens},
                            {"list_bytes", state.list_bytes},
                            {"left_out", state.left_out}});
}

absl::StatusOr<State> ReadState(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const HeaderJson json, ReadHeader(path, kFormat, kFormatVersion));
  State state;
  HeaderFields fields(path, json);
  fields.Read("options", state.options);
  fields.Read("files", state.files);
  fields.Read("documents", state.documents);
  fields.Read("chunks", state.chunks);
  fields.Read("tokens", state.tokens);
  fields.Read("list_bytes", state.list_bytes);
  fields.Read("left_out", state.left_out);
  RETRO_RETURN_IF_ERROR(fields.status());
  return state;
}

std::string HashOptions(const TokenFileOptions& options, const Tokenizer& tokenizer) {
  Sha256 hash;
  hash.UpdateField(tokenizer.fingerprint());
  hash.UpdateField(StrCat(options.chunk_length, " ", options.near_duplicate_share));
  hash.UpdateField(options.leave_out_near_duplicates_of);
  for (const std::string& path : options.documents) hash.UpdateField(path);
  return HexEncode(hash.Finish());
}

template <typename T>
std::string_view BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class Writer {
 public:
  Writer(const TokenFileOptions& options, std::shared_ptr<const Tokenizer> tokenizer, const Report& report)
      : options_(options), tokenizer_(std::move(tokenizer)), report_(report) {
    header_.chunk_length = options.chunk_length;
    header_.vocabulary = tokenizer_->vocabulary_size();
    header_.pad_id = tokenizer_->pad_id();
    header_.eos_id = tokenizer_->eos_id();
    header_.tokenizer_fingerprint = HexEncode(tokenizer_->fingerprint());
    state_.options = HashOptions(options, *tokenizer_);
  }

  absl::Status Run() {
    RETRO_RETURN_IF_ERROR(MakeFolder(Partial("")));
    RETRO_RETURN_IF_ERROR(Resume());
    RETRO_RETURN_IF_ERROR(OpenFiles());
    if (!options_.leave_out_near_duplicates_of.empty()) {
      RETRO_ASSIGN_OR_RETURN(near_duplicates_, NearDuplicates::Load(options_.leave_out_near_duplicates_of));
    }
    while (state_.files < options_.documents.size()) {
      RETRO_RETURN_IF_ERROR(AddFile(options_.documents[state_.files]));
      ++state_.files;
      RETRO_RETURN_IF_ERROR(Commit());
    }
    return Publish();
  }

 private:
  std::string Partial(const std::string& name) const { return StrCat(options_.out, "/", kPartialFolder, "/", name); }

  absl::Status Resume() {
    const absl::StatusOr<State> found = ReadState(Partial(kStateName));
    if (absl::IsNotFound(found.status())) return absl::OkStatus();
    RETRO_RETURN_IF_ERROR(found.status());
    if (found->options != state_.options) {
      return absl::FailedPreconditionError(
          StrCat(options_.out, " was begun with other documents or options: name another folder or remove it"));
    }
    state_ = *found;
    return absl::OkStatus();
  }

  absl::Status OpenFiles() {
    const auto open = [&](const char* name, uint64_t size, std::optional<AppendFile>& file) -> absl::Status {
      // Killed while it published: what is in its place already goes back.
      std::error_code absent;
      std::filesystem::rename(options_.out + "/" + name, Partial(name), absent);
      RETRO_ASSIGN_OR_RETURN(file, AppendFile::Open(Partial(name), size));
      return absl::OkStatus();
    };
    RETRO_RETURN_IF_ERROR(open(kTokensName, state_.tokens * header_.token_bytes(), tokens_));
    RETRO_RETURN_IF_ERROR(open(kDocumentsName, state_.documents * sizeof(DocumentRow), documents_));
    RETRO_RETURN_IF_ERROR(open(kChunksName, state_.chunks * sizeof(ChunkRow), chunks_));
    return open(kDocumentListName, state_.list_bytes, list_);
  }

  absl::Status AddFile(const std::string& path) {
    RETRO_ASSIGN_OR_RETURN(DocumentLines lines, DocumentLines::Open(path));
    bool more = true;
    while (more) {
      std::vector<TrainingDocument> batch(kBatchDocuments);
      size_t count = 0;
      while (count < batch.size()) {
        RETRO_ASSIGN_OR_RETURN(more, lines.Next(batch[count]));
        if (!more) break;
        ++count;
      }
      batch.resize(count);
      RETRO_RETURN_IF_ERROR(AddBatch(batch));
      report_(StrCat(path, ": ", state_.documents, " documents, ", state_.tokens, " tokens, ", state_.left_out,
                     " left out"));
    }
    return absl::OkStatus();
  }

  absl::Status AddBatch(const std::vector<TrainingDocument>& batch) {
    std::vector<std::vector<TokenId>> encoded(batch.size());
    ParallelFor(batch.size(), options_.threads, [&](size_t i) {
      if (near_duplicates_ && near_duplicates_->Share(batch[i].text) >= options_.near_duplicate_share) return;
      for (const Token& token : tokenizer_->Encode(batch[i].text)) encoded[i].push_back(token.id);
    });
    for (size_t i = 0; i < batch.size(); ++i) {
      if (encoded[i].empty()) {
        ++state_.left_out;
        continue;
      }
      RETRO_RETURN_IF_ERROR(AddDocument(batch[i], std::move(encoded[i])));
    }
    return absl::OkStatus();
  }

  absl::Status AddDocument(const TrainingDocument& document, std::vector<TokenId> ids) {
    const std::vector<DocumentRow> row = {{state_.tokens, state_.chunks}};
    std::vector<ChunkRow> chunks;
    const auto length = static_cast<size_t>(options_.chunk_length);
    for (size_t first = 0; first < ids.size(); first += length) {
      chunks.push_back({state_.tokens + first, static_cast<uint32_t>(state_.documents),
                        static_cast<uint32_t>(std::min(length, ids.size() - first))});
    }
    if (state_.chunks + chunks.size() >= std::numeric_limits<int32_t>::max()) {
      return absl::ResourceExhaustedError("more chunks than a data set can number (2^31): make several");
    }
    ids.push_back(header_.eos_id);
    RETRO_RETURN_IF_ERROR(AppendTokens(ids));
    RETRO_RETURN_IF_ERROR(documents_->Append(BytesOf(row)));
    RETRO_RETURN_IF_ERROR(chunks_->Append(BytesOf(chunks)));
    const HeaderJson line = {{"id", document.id}, {"title", document.title}, {"source", document.source}};
    RETRO_RETURN_IF_ERROR(list_->Append(line.dump() + "\n"));
    state_.tokens += ids.size();
    state_.chunks += chunks.size();
    ++state_.documents;
    return absl::OkStatus();
  }

  absl::Status AppendTokens(const std::vector<TokenId>& ids) {
    if (header_.token_bytes() == sizeof(TokenId)) return tokens_->Append(BytesOf(ids));
    return tokens_->Append(BytesOf(std::vector<uint16_t>(ids.begin(), ids.end())));
  }

  absl::Status Commit() {
    for (std::optional<AppendFile>* file : {&tokens_, &documents_, &chunks_, &list_}) {
      RETRO_RETURN_IF_ERROR((*file)->Sync());
    }
    state_.list_bytes = list_->size();
    return WriteState(Partial(kStateName), state_);
  }

  absl::Status Publish() {
    if (state_.documents == 0) return absl::InvalidArgumentError("there is no document with text");
    RETRO_RETURN_IF_ERROR(documents_->Append(BytesOf(std::vector<DocumentRow>{{state_.tokens, state_.chunks}})));
    RETRO_RETURN_IF_ERROR(documents_->Sync());
    RETRO_ASSIGN_OR_RETURN(header_.fingerprint, DataFingerprint(Partial("")));
    header_.documents = state_.documents;
    header_.chunks = state_.chunks;
    header_.tokens = state_.tokens;
    RETRO_RETURN_IF_ERROR(WriteDataHeader(Partial(""), header_));
    for (const char* name : {kTokensName, kDocumentsName, kChunksName, kDocumentListName, kDataHeaderName}) {
      RETRO_RETURN_IF_ERROR(PublishFile(options_.out, name));
    }
    return absl::OkStatus();
  }

  const TokenFileOptions& options_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const Report& report_;
  DataHeader header_;
  State state_;
  std::optional<NearDuplicates> near_duplicates_;
  std::optional<AppendFile> tokens_, documents_, chunks_, list_;
};

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

absl::Status WriteTokenFiles(const TokenFileOptions& options, const Report& report) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(options.tokenizer));
  if (tokenizer->eos_id() < 0 || tokenizer->pad_id() < 0) {
    return absl::InvalidArgumentError(StrCat(options.tokenizer, ": a vocabulary without eos or pad cannot be trained"));
  }
  const absl::StatusOr<DataHeader> done = ReadDataHeader(options.out);
  if (!absl::IsNotFound(done.status())) {
    RETRO_RETURN_IF_ERROR(done.status());
    const absl::StatusOr<State> state = ReadState(StrCat(options.out, "/", kPartialFolder, "/", kStateName));
    if (state.ok() && state->options == HashOptions(options, *tokenizer)) return absl::OkStatus();
    return absl::FailedPreconditionError(
        StrCat(options.out, " holds a data set of other documents or options: name another folder or remove it"));
  }
  return Writer(options, std::move(tokenizer), report).Run();
}

}  // namespace retro
