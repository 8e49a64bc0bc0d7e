// Files in other encodings than UTF-8.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/text/byte_source.h"

namespace retro::cli {

// The encoding that a file's beginning declares: a byte order mark, or in HTML a <meta charset> in its first 1,024
// bytes (the encodings' names on the web: "iso-8859-1" is windows-1252). "" if none.
std::string DeclaredEncoding(std::string_view beginning, bool html);

// True for the names of UTF-8, and for "".
bool IsUtf8Name(std::string_view encoding);

// `raw` converted from `encoding`, a name that iconv knows, to UTF-8. With `repair`, what is no character becomes
// U+FFFD; otherwise Read returns INVALID_ARGUMENT. INVALID_ARGUMENT if iconv does not know the name.
absl::StatusOr<std::unique_ptr<ByteSource>> DecodingSource(std::unique_ptr<ByteSource> raw, const std::string& encoding,
                                                           bool repair);

}  // namespace retro::cli
