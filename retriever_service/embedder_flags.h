// Settings of the embedder, for programs that have one.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "retriever_service/embed/embedder.h"

namespace retro {

struct EmbedderSettings {
  std::string embedder;
  std::string device = "cpu";
  std::string dtype = "fp16";
  int threads = 0;
};

// `settings` must outlive `app`.
void AddEmbedderFlags(CLI::App& app, EmbedderSettings& settings);

// Without reading its weights. Errors as MakeEmbedder.
absl::Status CheckEmbedder(const EmbedderSettings& settings);
absl::StatusOr<std::unique_ptr<Embedder>> MakeEmbedder(const EmbedderSettings& settings);

}  // namespace retro
