#include "trainer/token_files.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/tokenizer/tokenizer.h"
#include "trainer/data_set_writer.h"
#include "trainer/document_lines.h"
#include "trainer/near_duplicates.h"
#include "trainer/parallel.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBatchDocuments = 256;

std::string HashOptions(const TokenFileOptions& options, const Tokenizer& tokenizer) {
  Sha256 hash;
  hash.UpdateField(tokenizer.fingerprint());
  hash.UpdateField(StrCat(options.chunk_length, " ", options.near_duplicate_share));
  hash.UpdateField(options.leave_out_near_duplicates_of);
  for (const std::string& path : options.documents) hash.UpdateField(path);
  return HexEncode(hash.Finish());
}

// What a file is told apart by without reading it again; empty for one that is not there, or is no file.
std::string StampOf(const std::string& path) {
  std::error_code size_error, time_error;
  const uintmax_t size = std::filesystem::file_size(path, size_error);
  const auto changed = std::filesystem::last_write_time(path, time_error);
  return size_error || time_error ? "" : StrCat(size, " bytes, ", changed.time_since_epoch().count());
}

absl::Status HasChanged(const std::string& path, const std::string& out) {
  return absl::FailedPreconditionError(StrCat(path, " has changed since ", out,
                                              " was made of it: put it back, or name another folder; without "
                                              "--documents what was read stays"));
}

// The files that an earlier run has read, where they are still there.
absl::Status CheckInputs(const std::map<std::string, std::string>& inputs, const std::string& out) {
  for (const auto& [path, was] : inputs) {
    const std::string stamp = StampOf(path);
    if (!stamp.empty() && !was.empty() && stamp != was) return HasChanged(path, out);
  }
  return absl::OkStatus();
}

// Of all documents that were read up to this one.
std::string DigestWith(const std::string& before, const TrainingDocument& document) {
  Sha256 hash;
  hash.UpdateField(before);
  hash.UpdateField(document.id);
  hash.UpdateField(document.text);
  return HexEncode(hash.Finish());
}

// Chunks are counted from the document's first token.
std::vector<uint32_t> ChunkSizes(size_t tokens, int64_t chunk_length) {
  const auto length = static_cast<size_t>(chunk_length);
  std::vector<uint32_t> sizes;
  for (size_t first = 0; first < tokens; first += length) {
    sizes.push_back(static_cast<uint32_t>(std::min(length, tokens - first)));
  }
  return sizes;
}

class Reader {
 public:
  Reader(const TokenFileOptions& options, const Tokenizer& tokenizer, DataSetWriter& writer, const Report& report)
      : options_(options), tokenizer_(tokenizer), writer_(writer), report_(report) {}

  absl::Status Run() {
    if (!options_.leave_out_near_duplicates_of.empty()) {
      RETRO_ASSIGN_OR_RETURN(near_duplicates_, NearDuplicates::Load(options_.leave_out_near_duplicates_of));
      NoteInput(options_.leave_out_near_duplicates_of);
    }
    while (writer_.progress().sources < options_.documents.size()) {
      const std::string& path = options_.documents[writer_.progress().sources];
      RETRO_RETURN_IF_ERROR(AddFile(path));
      NoteInput(path);
      ++writer_.progress().sources;
      writer_.progress().place.clear();
      RETRO_RETURN_IF_ERROR(writer_.Commit());
    }
    return writer_.Publish();
  }

 private:
  void NoteInput(const std::string& path) { writer_.progress().inputs[path] = StampOf(path); }

  absl::Status AddFile(const std::string& path) {
    RETRO_ASSIGN_OR_RETURN(DocumentLines lines, DocumentLines::Open(path));
    RETRO_ASSIGN_OR_RETURN(uint64_t read, PassOver(lines, path));
    Clock::time_point committed = Clock::now();
    bool more = true;
    while (more) {
      std::vector<TrainingDocument> batch(kBatchDocuments);
      size_t count = 0;
      while (count < batch.size()) {
        RETRO_ASSIGN_OR_RETURN(more, lines.Next(batch[count]));
        if (!more) break;
        digest_ = DigestWith(digest_, batch[count]);
        ++count;
      }
      batch.resize(count);
      RETRO_RETURN_IF_ERROR(AddBatch(batch));
      read += count;
      if (std::chrono::duration<double>(Clock::now() - committed).count() >= options_.commit_seconds) {
        writer_.progress().place = StrCat(read, " ", digest_);
        RETRO_RETURN_IF_ERROR(writer_.Commit());
        committed = Clock::now();
      }
      const DataSetProgress& done = writer_.progress();
      report_(StrCat(path, ": ", done.documents, " documents, ", done.tokens, " tokens, ", done.left_out, " left out"));
    }
    return absl::OkStatus();
  }

  // Reads on to where an earlier run committed, if it is what that one read; returns how many documents of the file
  // that is.
  absl::StatusOr<uint64_t> PassOver(DocumentLines& lines, const std::string& path) {
    digest_.clear();
    std::istringstream place(writer_.progress().place);  // of older versions without a digest
    uint64_t count = 0;
    std::string was;
    place >> count >> was;
    TrainingDocument document;
    for (uint64_t i = 0; i < count; ++i) {
      RETRO_ASSIGN_OR_RETURN(const bool there, lines.Next(document));
      if (!there) return HasChanged(path, options_.out);
      digest_ = DigestWith(digest_, document);
    }
    if (!was.empty() && was != digest_) return HasChanged(path, options_.out);
    return count;
  }

  absl::Status AddBatch(const std::vector<TrainingDocument>& batch) {
    std::vector<std::vector<TokenId>> encoded(batch.size());
    ParallelFor(batch.size(), options_.threads, [&](size_t i) {
      if (near_duplicates_ && near_duplicates_->Share(batch[i].text) >= options_.near_duplicate_share) return;
      for (const Token& token : tokenizer_.Encode(batch[i].text)) encoded[i].push_back(token.id);
    });
    for (size_t i = 0; i < batch.size(); ++i) {
      if (encoded[i].empty()) {
        ++writer_.progress().left_out;
        continue;
      }
      const std::vector<uint32_t> chunks = ChunkSizes(encoded[i].size(), options_.chunk_length);
      RETRO_RETURN_IF_ERROR(
          writer_.Add({batch[i].id, batch[i].title, batch[i].source, batch[i].family}, std::move(encoded[i]), chunks));
    }
    return absl::OkStatus();
  }

  const TokenFileOptions& options_;
  const Tokenizer& tokenizer_;
  DataSetWriter& writer_;
  const Report& report_;
  std::optional<NearDuplicates> near_duplicates_;
  std::string digest_;  // of what was read of the file
};

}  // namespace

absl::Status WriteTokenFiles(const TokenFileOptions& options, const Report& report) {
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(options.tokenizer));
  RETRO_ASSIGN_OR_RETURN(const DataHeader header, HeaderOf(*tokenizer, options.tokenizer, options.chunk_length));
  RETRO_ASSIGN_OR_RETURN(DataSetWriter writer,
                         DataSetWriter::Open(options.out, header, HashOptions(options, *tokenizer)));
  RETRO_RETURN_IF_ERROR(CheckInputs(writer.progress().inputs, options.out));
  if (writer.complete()) return absl::OkStatus();
  return Reader(options, *tokenizer, writer, report).Run();
}

}  // namespace retro
