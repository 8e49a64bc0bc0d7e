// The subcommands of retro-build, and what they share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "builder/content_maker.h"
#include "builder/document_source.h"
#include "builder/shard_build.h"
#include "trainer/program.h"

namespace retro {

TrainCommand AddShardCommand(CLI::App& program);
TrainCommand AddReshardCommand(CLI::App& program);
TrainCommand AddReembedCommand(CLI::App& program);
TrainCommand AddTrainingDataCommand(CLI::App& program);

// What is given must outlive the parsing.
void AddTargetFlags(CLI::App& app, TargetOptions& options);
void AddContentFlags(CLI::App& app, ContentOptions& options);
void AddStoresArgument(CLI::App& app, std::vector<std::string>& folders);

// Writes all documents of the source that are still to be written, and finishes the shard. `content` makes their chunks
// and vectors; null if they have them. FAILED_PRECONDITION at the end if documents had to be left out.
absl::Status RunBuild(ShardBuild& build, DocumentSource& source, ContentMaker* content, const std::string& out);

}  // namespace retro
