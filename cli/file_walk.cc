#include "cli/file_walk.h"

#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/file.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNanoseconds = 1'000'000'000;

bool MatchesOne(const std::vector<std::string>& patterns, const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return fnmatch(pattern.c_str(), name.c_str(), 0) == 0 || fnmatch(pattern.c_str(), path.c_str(), 0) == 0;
  });
}

class Walker {
 public:
  explicit Walker(const WalkOptions& options) : options_(options) {}

  void Named(const std::string& name) {
    const std::string path = fs::path(name).lexically_normal().string();
    std::error_code error;
    const fs::file_status facts = fs::status(path, error);
    if (facts.type() == fs::file_type::not_found) {
      result_.problems.push_back(
          absl::NotFoundError(StrCat(path, ": there is no such file or folder: check the name")));
    } else if (error) {
      result_.problems.push_back(ErrnoStatus(error.value(), "cannot look at", path));
    } else if (fs::is_directory(facts)) {
      Folder(path);
    } else if (FileKindOf(path) == FileKind::kUnknown) {
      result_.problems.push_back(absl::InvalidArgumentError(StrCat(
          path,
          ": its name says nothing known: rename it, as .txt, .md, .html or .jsonl, perhaps with .gz or .zst behind")));
    } else {
      Take(path);
    }
  }

  WalkResult Finish() { return std::move(result_); }

 private:
  void Folder(const std::string& path) {
    std::error_code error;
    std::vector<fs::directory_entry> entries;
    fs::directory_iterator at(path, error);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) entries.push_back(*at);
    if (error) result_.problems.push_back(ErrnoStatus(error.value(), "cannot list", path));
    std::sort(entries.begin(), entries.end());
    for (const fs::directory_entry& entry : entries) {
      const std::string inner = entry.path().string();
      if (entry.path().filename().string().starts_with('.') || entry.is_symlink(error)) continue;
      if (entry.is_directory(error)) {
        Folder(inner);
      } else if (FileKindOf(inner) != FileKind::kUnknown && IsWanted(inner)) {
        Take(inner);
      }
    }
  }

  bool IsWanted(const std::string& path) const {
    return (options_.include.empty() || MatchesOne(options_.include, path)) && !MatchesOne(options_.exclude, path);
  }

  void Take(const std::string& path) {
    struct stat facts = {};
    if (stat(path.c_str(), &facts) != 0) {
      result_.problems.push_back(ErrnoStatus(errno, "cannot look at", path));
      return;
    }
    result_.files.push_back({path, FileKindOf(path), static_cast<uint64_t>(facts.st_size),
                             facts.st_mtim.tv_sec * kNanoseconds + facts.st_mtim.tv_nsec});
  }

  const WalkOptions& options_;
  WalkResult result_;
};

}  // namespace

FileKind FileKindOf(std::string_view path) {
  std::string name(path);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  fs::path file(name);
  if (file.extension() == ".gz" || file.extension() == ".zst") file = file.stem();
  const std::string extension = file.extension().string();
  if (extension == ".txt") return FileKind::kText;
  if (extension == ".md" || extension == ".markdown") return FileKind::kMarkdown;
  if (extension == ".html" || extension == ".htm") return FileKind::kHtml;
  if (extension == ".jsonl") return FileKind::kJsonl;
  return FileKind::kUnknown;
}

WalkResult WalkFiles(const std::vector<std::string>& paths, const WalkOptions& options) {
  Walker walker(options);
  for (const std::string& path : paths) walker.Named(path);
  return walker.Finish();
}

}  // namespace retro::cli
