// Texts of any length scored by a model of bounded context: piece after piece, each after the end of what precedes it.
#pragma once

#include <grpcpp/support/status.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/protocol.h"

namespace retro::cli {

// Sums over what was scored.
struct ScoreTotals {
  uint64_t bytes = 0;
  uint64_t tokens = 0;
  uint64_t greedy = 0;    // tokens that were the most likely ones
  uint64_t chunks = 0;    // with neighbours; a context's chunks count again with each piece
  uint64_t degraded = 0;  // chunks whose look-up failed or was not complete
  double logprob = 0;     // natural logarithm

  void Add(const std::string& text, const gen::ScoreResult& result);
  void Add(const ScoreTotals& other);
  // -log2 of the probability, by bytes of text; 0 for no text.
  double BitsPerByte() const;
  // Of a token; 1 for no text.
  double Perplexity() const;
};

// Not thread-safe.
class Scorer {
 public:
  // Called for each piece in order.
  using Sink = std::function<void(const std::string& text, const gen::ScoreResult& result)>;

  // `stub` must outlive it. `timeout_s` bounds each call.
  Scorer(gen::GeneratorService::Stub& stub, gen::Retrieval retrieval, double timeout_s, Sink sink);

  // Learns the model's sizes. Before the first text.
  grpc::Status Start();
  // A good length for what is given to Score at once.
  size_t piece_bytes() const { return piece_bytes_; }

  // The next text stands alone, after `context`, which is not scored.
  void BeginText(std::string context);
  // Scores what comes next of the text, after as much of what came before as half of the model's context holds. What
  // does not fit is cut into shorter pieces.
  grpc::Status Score(const std::string& text);

 private:
  grpc::Status Ask(const std::string& text, gen::ScoreResponse* response);

  gen::GeneratorService::Stub& stub_;
  const gen::Retrieval retrieval_;
  const double timeout_s_;
  const Sink sink_;
  size_t context_tokens_max_ = 0;
  size_t piece_bytes_ = 0;
  std::string context_;             // before the first piece of a text
  std::vector<int32_t> preceding_;  // ids of the text's last pieces
};

}  // namespace retro::cli
