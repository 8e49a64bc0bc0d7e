// retro-train run and fit: the command lines.
#include <memory>
#include <string>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/command.h"
#include "trainer/processes/process_group.h"
#include "trainer/retrofit.h"
#include "trainer/training.h"

namespace retro {
namespace {

struct RunOptions {
  TrainingOptions training;
  std::string numbers = "auto";
  std::string trained = "all";
  std::string new_weights = "copying";
  RetrofitOptions fit;
};

absl::Status TrainIn(const ProcessPlace& place, RunOptions& options) {
  options.training.device = place.device;
  options.training.group = place.group.get();
  const bool cpu = options.training.device == "cpu";
  const bool half = options.numbers == "bf16" || (options.numbers == "auto" && !cpu);
  options.training.numbers = half ? TrainNumbers::kBf16 : TrainNumbers::kFp32;
  return Train(options.training, ShowProgress);
}

absl::Status RunTraining(RunOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const ProcessPlace place, OpenProcessPlace(options.training.device));
  return TrainIn(place, options);
}

absl::Status RunFit(RunOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const ProcessPlace place, OpenProcessPlace(options.training.device));
  options.fit.out = options.training.out + "/start";
  options.fit.data = options.training.data;
  options.fit.length = options.training.batch.length;
  if (options.new_weights == "random") options.fit.new_weights = NewWeights::kRandom;
  if (place.group == nullptr || place.group->rank() == 0) {
    const absl::Status written = WriteRetrofitStart(options.fit);
    if (!written.ok() && place.group != nullptr) place.group->Abort(std::string(MessageOf(written)));
    RETRO_RETURN_IF_ERROR(written);
  }
  // The others read what rank 0 has written.
  if (place.group != nullptr) place.group->Gather(0);
  options.training.model = options.fit.out;
  options.training.trained = Trained::kRetrieval;
  return TrainIn(place, options);
}

void AddScheduleOptions(CLI::App& app, TrainingOptions& options) {
  OptimiserOptions& o = options.optimiser;
  app.add_option("--steps", o.steps, "Steps in all")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "After the warm-up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--final-share", o.final_share, "Share of the learning rate at the last step (cosine)")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--warmup-steps", o.warmup_steps, "Steps of linear warm-up")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--weight-decay", o.weight_decay, "Of matrices")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--beta2", o.beta2, "Of AdamW")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option("--clip-norm", o.clip_norm, "Largest norm of the gradients")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seconds-max", options.seconds_max,
                 "Stop with a checkpoint at the next log step after that time; 0: go on to the last step")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void AddBatchOptions(CLI::App& app, TrainingOptions& options) {
  BatchOptions& b = options.batch;
  app.add_option("--windows", b.windows, "Windows a pass")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--accumulation", options.accumulation, "Passes a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--length", b.length, "Tokens a window")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--k", b.k, "Neighbours a chunk")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--offset-share", b.offset_share, "Share of the windows that begin with a short chunk")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--no-retrieval-share", b.no_retrieval_share, "Share of the windows without neighbours")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--seed", b.seed, "Of the order of the text")->capture_default_str();
  app.add_flag("--recompute", options.recompute, "Compute activations again on the way back: less memory, more time");
}

void AddReportingOptions(CLI::App& app, TrainingOptions& options) {
  app.add_option("--log-steps", options.log_steps, "Steps a row of the curve")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--checkpoint-steps", options.checkpoint_steps, "Steps between checkpoints")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--validation-steps", options.validation_steps, "Steps between validations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--validation-batches", options.validation_batches, "Batches of a validation")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

void AddTrainingOptions(CLI::App& app, RunOptions& options) {
  TrainingOptions& training = options.training;
  app.add_option("--data", training.data, "Folder that prepare made")->required();
  app.add_option("--validation", training.validation, "Folder that prepare made, for the validation loss");
  app.add_option("--out", training.out,
                 "Folder for checkpoint, curve.csv, the curve as TensorBoard events, and the trained model (model/)")
      ->required();
  app.add_option("--device", training.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--numbers", options.numbers, "Of the computation; auto: bf16 on CUDA, fp32 on a CPU")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  AddBatchOptions(app, training);
  AddScheduleOptions(app, training);
  AddReportingOptions(app, training);
}

}  // namespace

TrainCommand AddRunCommand(CLI::App& program) {
  const auto options = std::make_shared<RunOptions>();
  CLI::App* app = program.add_subcommand("run", "Train a model; goes on from the checkpoint in --out if it was killed");
  app->add_option("--model", options->training.model, "Folder of the model to start from (retro-model init makes one)")
      ->required();
  AddTrainingOptions(*app, *options);
  app->add_option("--trained", options->trained, "all weights, or retrieval: those of CCA and encoder alone")
      ->check(CLI::IsMember({"all", "retrieval"}))
      ->capture_default_str();
  return {app, [options] {
            if (options->trained == "retrieval") options->training.trained = Trained::kRetrieval;
            return RunTraining(*options);
          }};
}

TrainCommand AddFitCommand(CLI::App& program) {
  const auto options = std::make_shared<RunOptions>();
  options->training.batch.no_retrieval_share = 0;
  CLI::App* app = program.add_subcommand(
      "fit",
      "Teach a plain decoder to read neighbours: CCA and encoder alone are trained; 'run' from --out/model goes "
      "on with all weights");
  app->add_option("--model", options->fit.plain, "Folder of the plain decoder")->required();
  app->add_option("--config", options->fit.config, "Its config (JSON) with CCA and encoder")->required();
  app->add_option(
         "--new-weights", options->new_weights,
         "How CCA and encoder start: copying from neighbours already, or random, which takes far longer to learn "
         "that")
      ->check(CLI::IsMember({"copying", "random"}))
      ->capture_default_str();
  app->add_option("--new-weights-seed", options->fit.seed, "Of the weights of CCA and encoder")->capture_default_str();
  AddTrainingOptions(*app, *options);
  return {app, [options] { return RunFit(*options); }};
}

}  // namespace retro
