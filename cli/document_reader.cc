#include "cli/document_reader.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cli/byte_source.h"
#include "cli/decoding_source.h"
#include "cli/document_json.h"
#include "cli/html_text.h"
#include "cli/line_reader.h"
#include "cli/part_cutter.h"
#include "cli/protocol.h"
#include "cli/utf8.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr size_t kPieceBytes = 64 << 10;
constexpr size_t kDeclarationBytes = 1024;  // where browsers look for an encoding

absl::Status At(std::string_view place, const absl::Status& status) {
  return absl::Status(status.code(), ToAbsl(StrCat(place, ": ", MessageOf(status))));
}

void AddDefaultMetadata(const pb::Document& defaults, pb::Document* document) {
  for (const auto& [key, values] : defaults.metadata()) document->mutable_metadata()->insert({key, values});
}

// Gives the document in `reading` the id and the metadata of that part.
void PlacePart(DocumentPart part, Reading* reading) {
  pb::Document& document = *reading->write.mutable_document();
  document.set_id(part.number > 0 ? PartId(part.document, part.number) : part.document);
  if (part.number > 0) {
    pb::MetadataValues values;
    values.add_values()->set_string_value(part.document);
    (*document.mutable_metadata())[kPartOfKey] = std::move(values);
  }
  reading->part = std::move(part);
}

// The file's bytes as UTF-8, as far as its encoding is known.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenDecoded(const std::string& path, const ReaderOptions& options,
                                                        bool html) {
  std::string encoding = options.encoding;
  std::vector<char> beginning(kDeclarationBytes);
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenByteSource(path));
  RETRO_ASSIGN_OR_RETURN(const size_t got, source->Read(beginning.data(), beginning.size()));
  const std::string declared = DeclaredEncoding({beginning.data(), got}, html && encoding.empty());
  if (!declared.empty()) encoding = declared;
  RETRO_ASSIGN_OR_RETURN(source, OpenByteSource(path));
  if (IsUtf8Name(encoding)) return source;
  return DecodingSource(std::move(source), encoding, options.repair);
}

// A file that is one document.
class WholeFileReader : public DocumentReader {
 public:
  WholeFileReader(InputFile file, const ReaderOptions& options)
      : file_(std::move(file)),
        options_(options),
        cutter_(options.part_bytes.value_or(kPartBytesDefault)),
        stage_(options.repair),
        piece_(kPieceBytes) {}

  std::optional<Reading> Next() override {
    if (!begun_) {
      begun_ = true;
      absl::Status status = CheckAll();
      if (status.ok()) status = Open();
      if (!status.ok()) return Fail(status);
    }
    while (true) {
      if (const absl::Status status = PumpUntilPart(); !status.ok()) return Fail(status);
      if (cutter_.empty()) {
        if (next_ordinal_ == 0 && !failed_)
          return Fail(absl::InvalidArgumentError("it has no text: fill it, or leave it out"));
        return std::nullopt;
      }
      Reading reading = MakePart(cutter_.Take());
      // The last part is known as such when there is no other one.
      if (const absl::Status status = PumpUntilPart(); !status.ok()) return Fail(status);
      reading.part.last = cutter_.empty();
      if (reading.ordinal >= skip_to_) return reading;
    }
  }

  void SkipTo(uint64_t ordinal) override { skip_to_ = ordinal; }
  uint64_t consumed_bytes() const override { return source_ == nullptr ? 0 : source_->consumed_bytes(); }

 private:
  bool is_html() const { return file_.kind == FileKind::kHtml; }

  Reading Fail(const absl::Status& status) {
    ended_ = failed_ = true;
    Reading reading;
    reading.problem = At(file_.path, status);
    reading.ordinal = next_ordinal_;
    return reading;
  }

  // Reads everything once, so that no part of a file is sent whose end cannot be read.
  absl::Status CheckAll() {
    RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenDecoded(file_.path, options_, is_html()));
    Utf8Stage stage(options_.repair);
    std::string text;
    while (true) {
      RETRO_ASSIGN_OR_RETURN(const size_t got, source->Read(piece_.data(), piece_.size()));
      text.clear();
      if (got == 0) return stage.Finish(&text);
      RETRO_RETURN_IF_ERROR(stage.Feed({piece_.data(), got}, &text));
    }
  }

  absl::Status Open() {
    RETRO_ASSIGN_OR_RETURN(source_, OpenDecoded(file_.path, options_, is_html()));
    if (is_html()) html_ = std::make_unique<HtmlText>();
    return absl::OkStatus();
  }

  // Until there is a part in the cutter, or no more text.
  absl::Status PumpUntilPart() {
    while (cutter_.empty() && !ended_) RETRO_RETURN_IF_ERROR(Pump());
    return absl::OkStatus();
  }

  // One piece of the file into the cutter.
  absl::Status Pump() {
    RETRO_ASSIGN_OR_RETURN(const size_t got, source_->Read(piece_.data(), piece_.size()));
    ended_ = got == 0;
    std::string text;
    RETRO_RETURN_IF_ERROR(ended_ ? stage_.Finish(&text) : stage_.Feed({piece_.data(), got}, &text));
    if (html_ != nullptr) {
      html_->Feed(text);
      if (ended_) html_->Finish();
      text = html_->TakeText();
    }
    cutter_.Append(text);
    if (ended_) cutter_.Finish();
    return absl::OkStatus();
  }

  Reading MakePart(std::string text) {
    Reading reading;
    reading.ordinal = next_ordinal_++;
    if (reading.ordinal == 0) {
      title_ = html_ != nullptr ? html_->title() : file_.kind == FileKind::kMarkdown ? MarkdownTitle(text) : "";
    }
    pb::Document& document = *reading.write.mutable_document();
    PlacePart({file_.path, cutter_.was_cut() ? next_ordinal_ : 0}, &reading);
    document.set_source(file_.path);
    document.set_title(title_);
    document.set_text(std::move(text));
    AddDefaultMetadata(options_.metadata, &document);
    return reading;
  }

  const InputFile file_;
  const ReaderOptions& options_;
  std::unique_ptr<ByteSource> source_;
  std::unique_ptr<HtmlText> html_;  // only for HTML
  PartCutter cutter_;
  Utf8Stage stage_;
  std::vector<char> piece_;
  std::string title_;
  uint64_t next_ordinal_ = 0;
  uint64_t skip_to_ = 0;
  bool begun_ = false;
  bool ended_ = false;
  bool failed_ = false;
};

// A document a line.
class JsonlReader : public DocumentReader {
 public:
  // `name` is the path, or "" for a stream.
  JsonlReader(absl::StatusOr<std::unique_ptr<ByteSource>> source, std::string name, const ReaderOptions& options)
      : name_(std::move(name)), options_(options), open_error_(source.status()) {
    if (source.ok()) lines_ = std::make_unique<LineReader>(*std::move(source));
  }

  std::optional<Reading> Next() override {
    if (lines_ == nullptr) return EndWith(open_error_);
    while (parts_.empty()) {
      if (ended_) return std::nullopt;
      const absl::StatusOr<bool> more = lines_->Next(&line_);
      if (!more.ok() && !absl::IsOutOfRange(more.status())) return EndWith(more.status());
      if (more.ok() && !*more) {
        if (lines_->line_number() == 1)
          return EndWith(absl::InvalidArgumentError("it is empty: fill it, or leave it out"));
        return std::nullopt;
      }
      if (lines_->line_number() <= skip_to_) continue;
      const absl::Status status = more.ok() ? ReadLine() : more.status();
      if (!status.ok()) return Problem(Place(), status);
    }
    Reading reading = std::move(parts_.back());
    parts_.pop_back();
    reading.last_of_ordinal = parts_.empty();
    return reading;
  }

  void SkipTo(uint64_t ordinal) override { skip_to_ = ordinal; }
  uint64_t consumed_bytes() const override { return lines_ == nullptr ? 0 : lines_->consumed_bytes(); }

 private:
  std::string Place() const { return StrCat(name_.empty() ? "standard input" : name_, ":", lines_->line_number()); }
  uint64_t ordinal() const { return lines_->line_number() - 1; }

  Reading Problem(std::string_view place, const absl::Status& status) const {
    Reading reading;
    reading.problem = At(place, status);
    if (lines_ != nullptr) reading.ordinal = ordinal();
    return reading;
  }

  // After `status` nothing more can be read.
  std::optional<Reading> EndWith(const absl::Status& status) {
    if (std::exchange(ended_, true)) return std::nullopt;
    return Problem(
        lines_ == nullptr || lines_->line_number() == 1 ? (name_.empty() ? "standard input" : name_) : Place(), status);
  }

  absl::Status ReadLine() {
    if (lines_->line_number() == 1 && line_.starts_with("\xef\xbb\xbf")) line_.erase(0, 3);
    if (line_.find_first_not_of(" \t") == std::string::npos) return absl::OkStatus();
    if (const size_t valid = ValidUtf8Prefix(line_); valid != line_.size()) {
      if (!options_.repair) {
        return absl::InvalidArgumentError(
            StrCat("the line is no UTF-8 at byte ", valid, ": name its encoding with --encoding, or use --repair"));
      }
      line_ = RepairedUtf8(line_);
    }
    RETRO_ASSIGN_OR_RETURN(ParsedDocument parsed, ParseDocumentJson(line_));
    pb::Document& document = *parsed.write.mutable_document();
    if (document.id().empty()) document.set_id(StrCat(name_.empty() ? "stdin" : name_, ":", lines_->line_number()));
    if (!parsed.has_source) document.set_source(name_);
    AddDefaultMetadata(options_.metadata, &document);
    return Cut(std::move(parsed.write));
  }

  // One document, or its parts, into parts_ in reverse order.
  absl::Status Cut(pb::DocumentWrite write) {
    const bool has_vectors = write.chunk_vectors_size() > 0;
    const size_t part_bytes = has_vectors ? kDocumentBytesMax : options_.part_bytes.value_or(kDocumentBytesMax);
    const std::string id = write.document().id();
    if (write.document().text().size() <= part_bytes) {
      AddPart(std::move(write), {id});
      return absl::OkStatus();
    }
    if (has_vectors) {
      return absl::InvalidArgumentError(
          StrCat("document \"", id, "\" has vectors and more than ", kDocumentBytesMax, " bytes of text: split it"));
    }
    PartCutter cutter(part_bytes);
    cutter.Append(write.document().text());
    cutter.Finish();
    write.mutable_document()->clear_text();
    for (size_t number = 1; !cutter.empty(); ++number) {
      pb::DocumentWrite part = write;
      part.mutable_document()->set_text(cutter.Take());
      AddPart(std::move(part), {id, number, /*last=*/cutter.empty()});
    }
    std::reverse(parts_.begin(), parts_.end());
    return absl::OkStatus();
  }

  void AddPart(pb::DocumentWrite write, DocumentPart part) {
    Reading reading;
    reading.ordinal = ordinal();
    reading.write = std::move(write);
    PlacePart(std::move(part), &reading);
    parts_.push_back(std::move(reading));
  }

  const std::string name_;
  const ReaderOptions& options_;
  const absl::Status open_error_;
  std::unique_ptr<LineReader> lines_;  // null if the file could not be opened
  std::string line_;
  std::vector<Reading> parts_;  // of the current line; the next one is the last
  uint64_t skip_to_ = 0;
  bool ended_ = false;
};

}  // namespace

std::string PartId(const std::string& document, uint64_t number) { return StrCat(document, "#", number); }

std::unique_ptr<DocumentReader> OpenDocumentReader(const InputFile& file, const ReaderOptions& options) {
  if (ValidUtf8Prefix(file.path) != file.path.size()) {
    return std::make_unique<JsonlReader>(absl::InvalidArgumentError("its name is no UTF-8: rename it"), file.path,
                                         options);
  }
  if (file.kind != FileKind::kJsonl) return std::make_unique<WholeFileReader>(file, options);
  return std::make_unique<JsonlReader>(OpenDecoded(file.path, options, false), file.path, options);
}

std::unique_ptr<DocumentReader> JsonlStreamReader(std::istream& stream, const ReaderOptions& options) {
  absl::StatusOr<std::unique_ptr<ByteSource>> source = StreamByteSource(stream);
  if (!IsUtf8Name(options.encoding)) source = DecodingSource(*std::move(source), options.encoding, options.repair);
  return std::make_unique<JsonlReader>(std::move(source), "", options);
}

}  // namespace retro::cli
