// Documents out of files, one at a time. Memory: a part or a line, whatever the file's length.
#pragma once

#include <cstdint>
#include <istream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "cli/file_walk.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro::cli {

inline constexpr size_t kDocumentBytesMax = 8 << 20;  // the server's bound on a text
inline constexpr size_t kPartBytesDefault = 1 << 20;  // for files; documents in JSONL stay whole as long as they may
inline constexpr size_t kPartBytesMin = 1 << 10;

struct ReaderOptions {
  std::optional<size_t> part_bytes;  // longest part of files and of JSONL documents; default see above
  std::string encoding;              // of all files without a byte order mark; "" for UTF-8, or what HTML declares
  bool repair = false;               // replace what is no character, instead of skipping the document
  ::retro::retriever::v1::Document metadata;  // its metadata is added to every document that lacks the key
};

// Metadata of a part: the id of the document that it is a part of. What a document was cut into before is found by it.
inline constexpr char kPartOfKey[] = "retro.part_of";

// The place of what is written in the document that was read. Parts are numbered from 1 without gaps; their ids are
// "DOCUMENT#NUMBER".
struct DocumentPart {
  std::string document;
  uint64_t number = 0;  // 0: the document was not cut
  bool last = true;
};
std::string PartId(const std::string& document, uint64_t number);

// What came next: a document, or a problem that cost one.
struct Reading {
  ::retro::retriever::v1::DocumentWrite write;
  absl::Status problem;  // if not OK, there is no document; names the place
  DocumentPart part;
  uint64_t ordinal = 0;         // of the part or line in its file, from 0
  bool last_of_ordinal = true;  // false if more documents of that ordinal follow
};

// Not thread-safe.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // Nothing at the end. A problem is never the end by itself: call on.
  virtual std::optional<Reading> Next() = 0;
  // Passes over what has a smaller ordinal, at the least cost. Before the first Next.
  virtual void SkipTo(uint64_t ordinal) = 0;
  // Bytes of the file that are done with.
  virtual uint64_t consumed_bytes() const = 0;
};

// Files of text, Markdown and HTML are one document, whose id and source are the path; longer ones are parts "path#1",
// "path#2", ... with one source (and the metadata kPartOfKey). The whole file is checked before its first part is
// given: it is read twice. Titles: <title> of HTML, the first heading of Markdown. JSONL is a document a line (see
// document_json.h); a missing id becomes "path:LINE", a missing source the path.
std::unique_ptr<DocumentReader> OpenDocumentReader(const InputFile& file, const ReaderOptions& options);

// JSONL from a stream, which must outlive the reader.
std::unique_ptr<DocumentReader> JsonlStreamReader(std::istream& stream, const ReaderOptions& options);

// The first heading of a Markdown text: "# ..." or a line underlined with = or -, outside of fenced code. "" if none.
std::string MarkdownTitle(std::string_view text);

}  // namespace retro::cli
