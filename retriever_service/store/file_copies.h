// Copies of files that do not change, by hard links where the file system has them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace retro {

struct FileToCopy {
  std::string path;
  std::string name;       // of the copy
  uint64_t bytes = 0;     // from its beginning
  bool may_grow = false;  // so that a link would have more
  std::string content;    // if not empty: in place of the file's
};

// Into `folder`, which must not exist; it is durable when this returns OK but for its name in the folder above, if any
// of them is written rather than linked, as one always is of a database; else it is gone. `go_on` is asked often, and
// its error ends it.
absl::Status CopyFiles(std::vector<FileToCopy> files, const std::string& folder,
                       const std::function<absl::Status()>& go_on);

}  // namespace retro
