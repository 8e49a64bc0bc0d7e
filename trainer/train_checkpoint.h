// What a killed run goes on from: weights, moments and step in one file, which is replaced as a whole. Nothing else is
// needed: batches are a function of (seed, step), and no other random numbers are drawn.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "generator_service/model/config.h"
#include "generator_service/model/weights.h"
#include "trainer/optimiser.h"

namespace retro {

inline constexpr char kCheckpointName[] = "checkpoint.safetensors";

// Says which run it is: everything that its losses depend on.
struct RunIdentity {
  std::string config;   // JSON
  std::string data;     // fingerprints of data and neighbours
  std::string options;  // seed, batch, optimiser
};

// RESOURCE_EXHAUSTED if the disk is full: the old checkpoint stays.
absl::Status WriteTrainCheckpoint(const std::string& folder, const RunIdentity& identity, const WeightMap& weights,
                                  const Optimiser& optimiser, int64_t step);

// Fills weights and moments in place and returns the steps done; NOT_FOUND: there is no checkpoint;
// FAILED_PRECONDITION: it is another run's.
absl::StatusOr<int64_t> ReadTrainCheckpoint(const std::string& folder, const RunIdentity& identity,
                                            const WeightMap& weights, const Optimiser& optimiser);

}  // namespace retro
