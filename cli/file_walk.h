// The files that a command line names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace retro::cli {

// What a file's name says about it; .gz and .zst behind it do not matter.
enum class FileKind { kUnknown, kText, kMarkdown, kHtml, kJsonl };
FileKind FileKindOf(std::string_view path);

struct InputFile {
  std::string path;  // as named, or the folder as named and the way from there; without "./" and double slashes
  FileKind kind = FileKind::kUnknown;
  uint64_t size_bytes = 0;
  int64_t modified_ns = 0;  // since 1970
};

struct WalkOptions {
  // Shell patterns against a file's name and its whole path; '*' goes over slashes. A file is taken if it matches one
  // of `include`, or there is none, and none of `exclude`.
  std::vector<std::string> include;
  std::vector<std::string> exclude;
};

struct WalkResult {
  std::vector<InputFile> files;
  std::vector<absl::Status> problems;  // each names its path
};

// Files as named (whatever they match), and in folders, at any depth and in the order of their names, those of a known
// kind. Hidden files and folders are passed over, unless named; so are symbolic links, unless named: a link within a
// folder may lead out of it, or around in circles.
WalkResult WalkFiles(const std::vector<std::string>& paths, const WalkOptions& options);

}  // namespace retro::cli
