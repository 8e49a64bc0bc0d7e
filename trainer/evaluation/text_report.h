// Bits per byte of a set of documents as figures with intervals: in all, by source, and over the chunks that their
// neighbours hold little of (Borgeaud et al. 2021, section 2.6).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/evaluation/text_scores.h"
#include "trainer/json_header.h"
#include "trainer/token_files.h"

namespace retro {

// Neighbours that shared shares are taken from, fewer where fewer were prepared.
inline constexpr int64_t kLeakageNeighbours = 10;

struct TextEvaluationOptions {
  EvaluationOptions evaluated;
  std::vector<int64_t> k;
  NeighbourForm form = NeighbourForm::kWhole;
  uint64_t documents_max = 0;  // the first ones; 0: all
  uint64_t tokens_max = 0;     // of a document; 0: all
  uint64_t seed = 1;
};

// One document under every k.
struct DocumentScores {
  std::string id;
  std::string family;                     // empty: of none
  std::vector<uint64_t> bytes;            // by chunk
  std::vector<double> shared;             // by chunk, r(C); empty where the text has no neighbours
  std::vector<std::vector<double>> bits;  // [k][chunk]
};

absl::StatusOr<std::vector<DocumentScores>> ScoreDocuments(const EvaluatedModel& evaluated,
                                                           const TextEvaluationOptions& options, const Report& report);

// What a document is one of: its id up to the first '/', or where there is none up to the last '-'.
std::string SourceOf(const std::string& id);

// Model, data, store and figures, as docs/evaluation.md describes.
HeaderJson TextReport(const EvaluatedModel& evaluated, const TextEvaluationOptions& options,
                      const std::vector<DocumentScores>& documents);

// The figures of a report for people.
std::string TextTable(const HeaderJson& report);

// An interval as reports have it.
HeaderJson ToJson(const Interval& interval);

// What every report of an evaluation says of model, text and store.
HeaderJson EvaluatedHeader(const EvaluatedModel& evaluated, const EvaluationOptions& options);

}  // namespace retro
