// The subcommands of retro-eval, and the options that they share.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "trainer/evaluation/evaluated_model.h"
#include "trainer/json_header.h"
#include "trainer/program.h"

namespace retro {

TrainCommand AddTextCommand(CLI::App& program);
TrainCommand AddBaselinesCommand(CLI::App& program);
TrainCommand AddQuestionsCommand(CLI::App& program);

void AddEvaluatedOptions(CLI::App& app, EvaluationOptions& options);

struct ReportOptions {
  std::string json;    // file to write; empty: none
  std::string commit;  // recorded
};

void AddReportOptions(CLI::App& app, ReportOptions& options);
absl::Status WriteReport(const ReportOptions& options, HeaderJson report);

}  // namespace retro
