// How people see a generation: text as it comes on standard output, everything about it on standard error.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cli/console.h"
#include "cli/protocol.h"

namespace retro::cli {

// A run of tokens at least this long that also stands in a neighbour came from there.
inline constexpr uint32_t kSharedRunMin = 8;

struct GenerateViewOptions {
  bool neighbours = false;   // a block for each retrieval event
  bool attribution = false;  // mark what came from neighbours, and list these at the end
  bool logprobs = false;     // list tokens with their log-probabilities at the end
  bool quiet = false;        // no summary
};

// Not thread-safe. `console` must outlive it.
class GenerateView {
 public:
  GenerateView(const Console& console, GenerateViewOptions options);

  void Show(const gen::GenerateResponse& event);
  // After the last event, whatever ended the call.
  void Finish();

  uint64_t generated_count() const { return generated_count_; }

 private:
  // What one neighbour of one chunk gave.
  struct Contribution {
    uint32_t longest_run = 0;
    uint32_t run_end = 0;  // position behind that run
    double attention = 0;  // sum over the tokens it served
    uint64_t tokens = 0;
  };
  using NeighbourKey = std::pair<uint32_t, uint32_t>;  // end of the chunk, place among its neighbours

  void ShowToken(const gen::TokenEvent& token);
  void ShowRetrieval(const gen::RetrievalEvent& event);
  void ShowFinish(const gen::FinishEvent& finish);
  void PrintText(const std::string& text, std::string_view style);
  void EndLine();
  void CountAttribution(const gen::TokenEvent& token);
  void ListContributions() const;
  void ListLogprobs() const;
  // The text of the `count` tokens before position `end`, as far as they were sent.
  std::string TextBefore(uint32_t end, uint32_t count) const;

  const Console& console_;
  const GenerateViewOptions options_;
  const Style style_;
  bool line_open_ = false;  // text was printed and not ended by a line break
  uint64_t generated_count_ = 0;
  std::map<uint32_t, gen::RetrievalEvent> retrievals_;  // by the end of their chunk
  std::map<NeighbourKey, Contribution> contributions_;
  std::map<uint32_t, std::string> raw_;  // bytes of tokens, by position
  std::vector<gen::TokenEvent> tokens_;  // kept for --logprobs
};

}  // namespace retro::cli
