// A training run: one step after the other from a folder of checkpoints, until it is done or told to stop.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "trainer/batch.h"
#include "trainer/optimiser.h"
#include "trainer/processes/process_group.h"
#include "trainer/token_files.h"

namespace retro {

enum class TrainNumbers { kFp32, kBf16 };

// Which weights learn.
enum class Trained {
  kAll,
  kRetrieval,  // CCA and encoder: without neighbours the model stays the one that it was, bit for bit (paper, 4.2)
};

struct TrainingOptions {
  std::string model;       // folder of the model that is trained on: its weights, config and tokenizer
  std::string data;        // prepared folder
  std::string validation;  // prepared folder; empty: none
  std::string out;         // checkpoint, curve and the trained model
  std::string device = "cpu";
  TrainNumbers numbers = TrainNumbers::kFp32;  // of activations and products; weights and moments are fp32
  BatchOptions batch;                          // of one pass
  int64_t accumulation = 1;                    // passes a step
  OptimiserOptions optimiser;
  Trained trained = Trained::kAll;
  bool recompute = false;
  int64_t log_steps = 10;
  int64_t checkpoint_steps = 500;
  int64_t validation_steps = 500;
  int64_t validation_batches = 16;
  double seconds_max = 0;  // stops with a checkpoint at the next log step after that time; 0: not before the last
  // The processes that train together; null: this one alone. They share out the passes of a step, so all have the same
  // options, and the steps are those of one process; rank 0 alone writes. Not owned.
  ProcessGroup* group = nullptr;
};

// Goes on from the folder's checkpoint if there is one, to the same losses as without the interruption.
// FAILED_PRECONDITION: the checkpoint is another run's (config, data, options that decide the losses). ABORTED: the
// loss was not finite; the message says at which step and in which windows, and the last checkpoint stays. In a group
// an error ends all its processes, instead of coming back.
absl::Status Train(const TrainingOptions& options, const Report& report);

}  // namespace retro
