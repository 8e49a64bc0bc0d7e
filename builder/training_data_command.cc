// retro-build training-data: a collection as a data set of retro-train's.
#include <memory>
#include <string>
#include <vector>

#include "builder/command.h"
#include "builder/training_data.h"
#include "common/base/status_macros.h"

namespace retro {
namespace {

constexpr char kFooter[] = R"(
The folder's files are described in docs/training_data.md. It serves `retro-train prepare` as --database of other
documents, or as its own: `retro-train prepare --out FOLDER` finds the nearest chunks of each of its chunks.)";

struct Options {
  std::vector<std::string> stores;
  TrainingDataOptions data;
};

}  // namespace

TrainCommand AddTrainingDataCommand(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand(
      "training-data", "A collection's tokens, chunks and vectors as a data set of retro-train's; goes on if killed");
  app->footer(kFooter);
  AddStoresArgument(*app, options->stores);
  app->add_option("--out", options->data.out, "The folder to make")->required();
  app->add_option("--tokenizer", options->data.tokenizer, "The tokenizer that cut the collection")->required();
  app->add_option("--collection", options->data.collection, "Collection; without it, the default one");
  return {app, [options]() -> absl::Status {
            RETRO_ASSIGN_OR_RETURN(const StoredShards shards, StoredShards::Open(options->stores));
            return WriteTrainingData(shards, options->data, ShowProgress);
          }};
}

}  // namespace retro
