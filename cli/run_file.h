// A generation's neighbours and seed in a file, so that it can be replayed.
//
// JSON lines: the run's retrieval events and its finish event, each as a retro.generator.v1.GenerateResponse.
#pragma once

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "cli/protocol.h"

namespace retro::cli {

// Not thread-safe.
class RunFileWriter {
 public:
  // PERMISSION_DENIED if the file cannot be made.
  absl::Status Open(const std::string& path);
  // Writes what a replay needs; passes over tokens. Does nothing if not open.
  void Add(const gen::GenerateResponse& event);
  // RESOURCE_EXHAUSTED if something could not be written.
  absl::Status Close();

 private:
  std::string path_;
  std::ofstream file_;
};

// Puts a file's neighbours into request->retrieval(), in place of look-ups, and its seed into request->sampling()
// unless that has one. NOT_FOUND or INVALID_ARGUMENT, with the line.
absl::Status ReplayRunFile(const std::string& path, gen::GenerateRequest* request);

}  // namespace retro::cli
