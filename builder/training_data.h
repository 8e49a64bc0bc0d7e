// A collection as a data set of the trainer's: its tokens, chunks and vectors as they are stored. docs/training_data.md
// describes the files.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "builder/stored_documents.h"
#include "trainer/token_files.h"

namespace retro {

struct TrainingDataOptions {
  std::string collection;
  std::string tokenizer;  // the collection's: it knows eos and pad
  std::string out;
};

// Goes on where it was killed, and does nothing if the folder is complete.
absl::Status WriteTrainingData(const StoredShards& shards, const TrainingDataOptions& options, const Report& report);

}  // namespace retro
