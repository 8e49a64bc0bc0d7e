// retro-eval baselines: the command line.
#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "common/base/status_macros.h"
#include "trainer/evaluation/command.h"
#include "trainer/evaluation/interpolation.h"

namespace retro {
namespace {

struct BaselinesCommandOptions {
  BaselineOptions baselines;
  ReportOptions report;
};

absl::Status Run(const BaselinesCommandOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const EvaluatedModel evaluated, OpenEvaluatedModel(options.baselines.evaluated));
  RETRO_ASSIGN_OR_RETURN(const HeaderJson report, EvaluateBaselines(evaluated, options.baselines, ShowProgress));
  for (const char* name : {"knn_lm", "continuous_cache"}) {
    const HeaderJson& figures = report[name];
    std::cout << fmt::format("{:<18}{:.4f} bits per byte, {:.4f} of the model alone\n", name,
                             figures["bits_per_byte"]["value"].get<double>(),
                             figures["to_model_alone"]["value"].get<double>());
  }
  return WriteReport(options.report, report);
}

}  // namespace

TrainCommand AddBaselinesCommand(CLI::App& program) {
  const auto options = std::make_shared<BaselinesCommandOptions>();
  BaselineOptions& baselines = options->baselines;
  CLI::App* app = program.add_subcommand(
      "baselines", "The model without retrieval, mixed with a kNN-LM's store and with a continuous cache");
  AddEvaluatedOptions(*app, baselines.evaluated);
  app->add_option("--store", baselines.store,
                  "Prepared folders whose tokens the kNN-LM remembers, the first ones first")
      ->required();
  app->add_option("--store-tokens-max", baselines.store_tokens_max,
                  "Tokens of the store at most; of a folder that is cut, documents are drawn")
      ->check(CLI::Range(1, 5000000))
      ->capture_default_str();
  app->add_option("--nearest", baselines.knn.nearest, "Entries of the store that a token is predicted from")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--lists", baselines.knn.lists, "Inverted lists that the store is cut into, fewer if it is small")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--probed", baselines.knn.probed,
                  "Lists that a token looks through; as many as --lists: all, exactly")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--cache-tokens", baselines.cache_tokens, "Tokens of the document that the cache remembers")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--documents-max", baselines.documents_max, "The first documents alone; 0: all")
      ->capture_default_str();
  app->add_option("--tokens-max", baselines.tokens_max, "Of a document, its first ones; 0: all")->capture_default_str();
  app->add_option("--seed", baselines.seed, "Of the intervals")->capture_default_str();
  AddReportOptions(*app, options->report);
  return {app, [options] { return Run(*options); }};
}

}  // namespace retro
