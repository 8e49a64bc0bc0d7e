// retro-build: stores without a service: built from documents, cut into other shards, embedded anew.
#include "builder/command.h"
#include "common/base/heap.h"
#include "spdlog/spdlog.h"

int main(int argc, char** argv) {
  retro::BoundHeaps();
  spdlog::set_level(spdlog::level::warn);  // progress says enough
  return retro::RunProgram(
      "retro-build", "Builds, reshards and re-embeds stores, and makes training data of them.",
      {retro::AddShardCommand, retro::AddReshardCommand, retro::AddReembedCommand, retro::AddTrainingDataCommand}, argc,
      argv);
}
