// retro-eval questions: the command line.
#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "common/base/status_macros.h"
#include "trainer/evaluation/command.h"
#include "trainer/evaluation/questions.h"

namespace retro {
namespace {

struct QuestionsCommandOptions {
  QuestionOptions questions;
  ReportOptions report;
};

absl::Status Run(QuestionsCommandOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const EvaluatedModel evaluated, OpenEvaluatedModel(options.questions.evaluated));
  if (evaluated.info.config.cca_layers.empty()) options.questions.k = {0};
  RETRO_ASSIGN_OR_RETURN(const HeaderJson report, EvaluateQuestions(evaluated, options.questions, ShowProgress));
  for (const auto& [among, hits] : report["hits_among"].items()) {
    std::cout << fmt::format("paragraph among {:>2} nearest: {:.3f}\n", among, hits["value"].get<double>());
  }
  for (const HeaderJson& run : report["runs"]) {
    std::cout << fmt::format("k {}: exact match {:.4f}, F1 {:.4f}\n", run["k"].get<int64_t>(),
                             run["exact_match"]["value"].get<double>(), run["f1"]["value"].get<double>());
  }
  return WriteReport(options.report, report);
}

}  // namespace

TrainCommand AddQuestionsCommand(CLI::App& program) {
  const auto options = std::make_shared<QuestionsCommandOptions>();
  QuestionOptions& questions = options->questions;
  CLI::App* app = program.add_subcommand("questions", "Question answering over a store of paragraphs");
  AddEvaluatedOptions(*app, questions.evaluated);
  app->add_option("--questions", questions.questions, "JSON lines with \"question\", \"answers\" and \"doc\"")
      ->required();
  app->add_option("--embedder", questions.embedder, "Folder of the BERT that --data was prepared with")->required();
  app->add_option("--k", questions.k, "Chunks that the model is given, 0: no retrieval; one after the other")
      ->check(CLI::Range(0, 1024))
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--answer-tokens", questions.answer_tokens, "Of an answer at most")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app->add_option("--questions-max", questions.questions_max, "The first questions alone; 0: all")
      ->capture_default_str();
  app->add_option("--seed", questions.seed, "Of the intervals")->capture_default_str();
  AddReportOptions(*app, options->report);
  return {app, [options] { return Run(*options); }};
}

}  // namespace retro
