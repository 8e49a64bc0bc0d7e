// Question answering over a store of paragraphs: is the right paragraph found, and does the model answer with it?
// Answers are compared as SQuAD does (Rajpurkar et al. 2016, arXiv 1606.05250): without case, punctuation and articles.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/evaluation/evaluated_model.h"
#include "trainer/json_header.h"
#include "trainer/token_files.h"

namespace retro {

struct Question {
  std::string text;
  std::vector<std::string> answers;  // any of them is right
  std::string document;              // id of the paragraph that holds the answer
};

// JSON lines with "question", "answers" and "doc". INVALID_ARGUMENT naming file and line.
absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path);

struct QuestionOptions {
  EvaluationOptions evaluated;  // its data: the paragraphs, with their vectors
  std::string questions;
  std::string embedder;                   // folder of the BERT that made those vectors
  std::vector<int64_t> k = {0, 1, 2, 4};  // chunks of paragraphs that the model is given; 0: no retrieval
  int64_t answer_tokens = 16;
  uint64_t questions_max = 0;  // the first ones; 0: all
  uint64_t seed = 1;
};

// Share of the questions whose paragraph is among the nearest 1, 2, 4 and 10 chunks; and by k the shares of answers
// that are exactly right, and mean F1 over words. Intervals over paragraphs. Greedy decoding, up to a line's end.
absl::StatusOr<HeaderJson> EvaluateQuestions(const EvaluatedModel& evaluated, const QuestionOptions& options,
                                             const Report& report);

std::string NormalisedAnswer(std::string_view text);
// The best over the right answers: 1 if they are equal once normalised; the harmonic mean of precision and recall of
// words.
bool ExactMatch(std::string_view given, const std::vector<std::string>& answers);
double WordF1(std::string_view given, const std::vector<std::string>& answers);

}  // namespace retro
