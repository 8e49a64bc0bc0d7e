// retro-eval text: the command line.
#include <iostream>
#include <memory>
#include <string>

#include "common/base/status_macros.h"
#include "trainer/evaluation/command.h"
#include "trainer/evaluation/text_report.h"

namespace retro {
namespace {

struct TextCommandOptions {
  TextEvaluationOptions text;
  std::string form = "whole";
  ReportOptions report;
};

absl::Status Run(TextCommandOptions& options) {
  RETRO_ASSIGN_OR_RETURN(options.text.form, NeighbourFormFromName(options.form));
  RETRO_ASSIGN_OR_RETURN(const EvaluatedModel evaluated, OpenEvaluatedModel(options.text.evaluated));
  if (evaluated.info.config.cca_layers.empty()) options.text.k = {0};
  RETRO_ASSIGN_OR_RETURN(const std::vector<DocumentScores> documents,
                         ScoreDocuments(evaluated, options.text, ShowProgress));
  const HeaderJson report = TextReport(evaluated, options.text, documents);
  std::cout << TextTable(report);
  return WriteReport(options.report, report);
}

}  // namespace

TrainCommand AddTextCommand(CLI::App& program) {
  const auto options = std::make_shared<TextCommandOptions>();
  TextEvaluationOptions& text = options->text;
  text.k = {0, 1, 2, 4, 10};
  CLI::App* app = program.add_subcommand("text", "Bits per byte of documents, with and without their neighbours");
  AddEvaluatedOptions(*app, text.evaluated);
  app->add_option("--k", text.k, "Neighbours a chunk, 0: no retrieval; several are evaluated one after the other")
      ->check(CLI::Range(0, 1024))
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--neighbours", options->form,
                  "What the model is given: whole neighbours, alone without their continuation, the continuation "
                  "alone, or random ones of the store")
      ->check(CLI::IsMember({"whole", "alone", "continuation", "random"}))
      ->capture_default_str();
  app->add_flag("--no-conditioning{false}", text.evaluated.conditioning,
                "The encoder does not see the chunk that the neighbours were found for");
  app->add_option("--documents-max", text.documents_max, "The first documents alone; 0: all")->capture_default_str();
  app->add_option("--tokens-max", text.tokens_max, "Of a document, its first ones; 0: all")->capture_default_str();
  app->add_option("--seed", text.seed, "Of the intervals and of random neighbours")->capture_default_str();
  AddReportOptions(*app, options->report);
  return {app, [options] { return Run(*options); }};
}

}  // namespace retro
