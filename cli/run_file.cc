#include "cli/run_file.h"

#include "cli/message_json.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/text/byte_source.h"
#include "common/text/line_reader.h"

namespace retro::cli {

absl::Status RunFileWriter::Open(const std::string& path) {
  path_ = path;
  file_.open(path, std::ios::binary | std::ios::trunc);
  if (file_) return absl::OkStatus();
  return absl::PermissionDeniedError(StrCat("cannot write ", path, ": name a place where you may write"));
}

void RunFileWriter::Add(const gen::GenerateResponse& event) {
  if (file_.is_open() && !event.has_token()) file_ << MessageToJson(event) << '\n';
}

absl::Status RunFileWriter::Close() {
  if (!file_.is_open()) return absl::OkStatus();
  file_.close();
  if (file_) return absl::OkStatus();
  return absl::ResourceExhaustedError(StrCat("cannot write all of ", path_, ": is the disk full?"));
}

absl::Status ReplayRunFile(const std::string& path, gen::GenerateRequest* request) {
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenByteSource(path));
  LineReader lines(std::move(source));
  std::string line;
  while (true) {
    RETRO_ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) return absl::OkStatus();
    gen::GenerateResponse event;
    if (const absl::Status status = MessageFromJson(line, &event); !status.ok()) {
      return absl::InvalidArgumentError(
          StrCat(path, ":", lines.line_number(), ": ", MessageOf(status), "; write such a file with --save-run"));
    }
    if (event.has_retrieval()) {
      *request->mutable_retrieval()->add_neighbours() = std::move(*event.mutable_retrieval()->mutable_neighbours());
    }
    if (event.has_finish() && !request->sampling().has_seed()) {
      request->mutable_sampling()->set_seed(event.finish().seed());
    }
  }
}

}  // namespace retro::cli
