// retro-eval: what a trained model is worth, on texts and questions.
#include "trainer/evaluation/command.h"

namespace retro {

void AddEvaluatedOptions(CLI::App& app, EvaluationOptions& options) {
  app.add_option("--model", options.model, "Model folder")->required();
  app.add_option("--data", options.data, "Folder that retro-train prepare made, with its neighbours in the store")
      ->required();
  app.add_option("--device", options.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--dtype", options.numbers, "Numbers that the model computes in: fp32, fp16, int8 or bf16")
      ->check(CLI::IsMember(ModelNumbersNames()))
      ->capture_default_str();
}

void AddReportOptions(CLI::App& app, ReportOptions& options) {
  app.add_option("--json", options.json, "File for the whole report");
  app.add_option("--commit", options.commit, "The code's commit, for the report");
}

absl::Status WriteReport(const ReportOptions& options, HeaderJson report) {
  if (options.json.empty()) return absl::OkStatus();
  report["commit"] = options.commit;
  return WriteHeader(options.json, report);
}

}  // namespace retro

int main(int argc, char** argv) {
  return retro::RunProgram("retro-eval", "Evaluates RETRO models: with retrieval against without, and its baselines.",
                           {retro::AddTextCommand, retro::AddBaselinesCommand, retro::AddQuestionsCommand}, argc, argv);
}
