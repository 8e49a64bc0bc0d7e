// What lies in a folder.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace retro {

// The names of what is in `folder`, in no order; with an error those that came before it. A loop over the iterator
// itself would throw if the disk fails while it goes on, and end the process.
inline std::vector<std::string> NamesIn(const std::string& folder, std::error_code& error) {
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  return names;
}

}  // namespace retro
