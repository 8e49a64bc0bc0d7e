#include "trainer/evaluation/questions.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <utility>

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/embed/bert_embedder.h"
#include "trainer/chunk_vectors.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/evaluation/text_report.h"
#include "trainer/nearest_chunks.h"

namespace retro {
namespace {

constexpr std::array<int64_t, 4> kHitsAmong = {1, 2, 4, 10};
constexpr size_t kBatchTexts = 32;

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// The nearest chunks of each question, nearest first.
absl::StatusOr<std::vector<std::vector<uint64_t>>> FindChunks(const DataSet& data, const QuestionOptions& options,
                                                              const std::vector<Question>& questions, int64_t count) {
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<BertEmbedder> embedder,
                         BertEmbedder::Load(options.embedder, {.device = options.evaluated.device}));
  RETRO_ASSIGN_OR_RETURN(const ChunkVectors vectors, ChunkVectors::Open(data));
  if (vectors.header.embedder_fingerprint != HexEncode(embedder->info().fingerprint)) {
    return absl::FailedPreconditionError(StrCat(data.folder(), " was embedded by another embedder than ",
                                                options.embedder, ": its distances mean nothing here"));
  }
  char* bytes = const_cast<char*>(vectors.file.bytes().data());  // read only
  const at::Tensor rows =
      at::from_blob(bytes, {static_cast<int64_t>(vectors.header.chunks), vectors.header.dimension}, at::kHalf)
          .to(at::kFloat);
  std::vector<std::vector<uint64_t>> found;
  for (size_t first = 0; first < questions.size(); first += kBatchTexts) {
    std::vector<TokenSequence> batch;
    for (size_t i = first; i < std::min(first + kBatchTexts, questions.size()); ++i) {
      batch.push_back(embedder->Encode(questions[i].text, TextKind::kQuery));
    }
    RETRO_ASSIGN_OR_RETURN(std::vector<float> embedded, embedder->Embed(batch));
    const at::Tensor queries =
        at::from_blob(embedded.data(), {std::ssize(batch), vectors.header.dimension}, at::kFloat);
    const at::Tensor nearest =
        LargestOf(at::matmul(queries, rows.t()), std::min<int64_t>(count, rows.size(0))).rows.contiguous();
    for (int64_t q = 0; q < nearest.size(0); ++q) {
      const int64_t* numbers = nearest.const_data_ptr<int64_t>() + q * nearest.size(1);
      found.emplace_back(numbers, numbers + nearest.size(1));
    }
  }
  return found;
}

std::string Prompt(const Question& question) { return StrCat("Question: ", question.text, "\nAnswer:"); }

// What the model writes after the prompt, up to the end of the line. The prompt ends on a chunk border, so that its
// neighbours serve the first new token.
absl::StatusOr<std::string> Answer(const EvaluatedModel& evaluated, const Question& question,
                                   std::span<const uint64_t> chunks, int64_t tokens_max) {
  const ModelConfig& config = evaluated.info.config;
  const DataSet& data = *evaluated.text.data;
  std::vector<TokenId> tokens;
  for (const Token& token : evaluated.tokenizer->Encode(Prompt(question))) tokens.push_back(token.id);
  RETRO_ASSIGN_OR_RETURN(
      const std::unique_ptr<Sequence> sequence,
      evaluated.model->NewSequence(
          {.offset = std::ssize(tokens) % config.chunk_length, .retrieval = !chunks.empty(), .slide = true}));
  ChunkNeighbours neighbours = {.count = std::ssize(chunks)};
  neighbours.tokens.resize(chunks.size() * config.neighbour_length);
  for (size_t j = 0; j < chunks.size(); ++j) {
    CopyNeighbourTokens(data, chunks[j], static_cast<TokenId>(config.pad_id),
                        std::span(neighbours.tokens).subspan(j * config.neighbour_length, config.neighbour_length));
  }
  std::string answer;
  for (int64_t count = 0; count < tokens_max; ++count) {
    const int64_t completed = chunks.empty() ? 0 : sequence->ChunksCompletedBy(std::ssize(tokens));
    const std::vector<ChunkNeighbours> given(completed, neighbours);
    const Piece piece = {.sequence = sequence.get(), .tokens = tokens, .neighbours = given};
    RETRO_ASSIGN_OR_RETURN(const std::vector<at::Tensor> logits, evaluated.model->Forward({&piece, 1}));
    tokens = {static_cast<TokenId>(logits[0][0].argmax().item<int64_t>())};
    if (tokens[0] == data.header().eos_id) break;
    answer += evaluated.tokenizer->Decode(tokens);
    if (answer.find('\n') != std::string::npos) break;
  }
  return answer.substr(0, answer.find('\n'));
}

// Sums by paragraph, for intervals.
using ByParagraph = std::map<std::string, RatioTerm>;

HeaderJson MeanOf(const ByParagraph& sums, uint64_t seed) {
  std::vector<RatioTerm> terms;
  terms.reserve(sums.size());
  for (const auto& [paragraph, term] : sums) terms.push_back(term);
  const Interval interval = BootstrapRatio(terms, seed);
  return {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
}

void AddTo(ByParagraph& sums, const Question& question, double value) {
  RatioTerm& term = sums[question.document];
  term.numerator += value;
  term.denominator += 1;
}

HeaderJson HitFigures(const std::vector<Question>& questions, const std::vector<std::vector<uint64_t>>& found,
                      const DataSet& data, const std::vector<std::string>& ids, uint64_t seed) {
  HeaderJson hits = HeaderJson::object();
  for (const int64_t among : kHitsAmong) {
    ByParagraph sums;
    for (size_t q = 0; q < questions.size(); ++q) {
      const auto first = std::span(found[q]).first(std::min<size_t>(among, found[q].size()));
      const bool hit = std::ranges::any_of(
          first, [&](uint64_t chunk) { return ids[data.chunks()[chunk].document] == questions[q].document; });
      AddTo(sums, questions[q], hit ? 1 : 0);
    }
    hits[StrCat(among)] = MeanOf(sums, seed);
  }
  return hits;
}

}  // namespace

absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<Question> questions;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const HeaderJson json = HeaderJson::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool fits = json.is_object() && json.contains("question") && json["question"].is_string() &&
                      json.contains("doc") && json["doc"].is_string() && json.contains("answers") &&
                      json["answers"].is_array() && !json["answers"].empty() &&
                      std::ranges::all_of(json["answers"], [](const HeaderJson& answer) { return answer.is_string(); });
    if (!fits) {
      return absl::InvalidArgumentError(StrCat(path, ":", questions.size() + 1,
                                               ": is no question: a JSON object with \"question\", \"answers\" and "
                                               "\"doc\""));
    }
    questions.push_back({json["question"].get<std::string>(), json["answers"].get<std::vector<std::string>>(),
                         json["doc"].get<std::string>()});
  }
  return questions;
}

absl::StatusOr<HeaderJson> EvaluateQuestions(const EvaluatedModel& evaluated, const QuestionOptions& options,
                                             const Report& report) {
  const DataSet& data = *evaluated.text.data;
  RETRO_ASSIGN_OR_RETURN(std::vector<Question> questions, ReadQuestions(options.questions));
  if (options.questions_max > 0 && options.questions_max < questions.size()) questions.resize(options.questions_max);
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> ids, DocumentIds(data));
  const int64_t most = std::max(*std::ranges::max_element(options.k), kHitsAmong.back());
  RETRO_ASSIGN_OR_RETURN(const auto found, FindChunks(data, options, questions, most));
  HeaderJson figures = {{"what", "questions"}};
  figures.update(EvaluatedHeader(evaluated, options.evaluated));
  figures["questions"] = questions.size();
  figures["hits_among"] = HitFigures(questions, found, data, ids, options.seed);
  figures["runs"] = HeaderJson::array();
  for (const int64_t k : options.k) {
    ByParagraph exact, f1;
    for (size_t q = 0; q < questions.size(); ++q) {
      const auto chunks = std::span(found[q]).first(std::min<size_t>(k, found[q].size()));
      RETRO_ASSIGN_OR_RETURN(const std::string answer, Answer(evaluated, questions[q], chunks, options.answer_tokens));
      AddTo(exact, questions[q], ExactMatch(answer, questions[q].answers) ? 1 : 0);
      AddTo(f1, questions[q], WordF1(answer, questions[q].answers));
      report(StrCat("k ", k, ": answered ", q + 1, " of ", questions.size(), " questions"));
    }
    figures["runs"].push_back(
        {{"k", k}, {"exact_match", MeanOf(exact, options.seed)}, {"f1", MeanOf(f1, options.seed)}});
  }
  return figures;
}

std::string NormalisedAnswer(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::ispunct(byte) == 0) plain.push_back(static_cast<char>(std::tolower(byte)));
  }
  const std::set<std::string> articles = {"a", "an", "the"};
  std::string result;
  for (const std::string& word : Words(plain)) {
    if (!articles.contains(word)) result += (result.empty() ? "" : " ") + word;
  }
  return result;
}

bool ExactMatch(std::string_view given, const std::vector<std::string>& answers) {
  const std::string normalised = NormalisedAnswer(given);
  return std::ranges::any_of(answers,
                             [&](const std::string& answer) { return NormalisedAnswer(answer) == normalised; });
}

double WordF1(std::string_view given, const std::vector<std::string>& answers) {
  double best = 0;
  const std::vector<std::string> given_words = Words(NormalisedAnswer(given));
  for (const std::string& answer : answers) {
    const std::vector<std::string> words = Words(NormalisedAnswer(answer));
    std::map<std::string, int64_t> left;
    for (const std::string& word : words) ++left[word];
    const auto common = static_cast<double>(
        std::ranges::count_if(given_words, [&](const std::string& word) { return left[word]-- > 0; }));
    if (common == 0) continue;
    best = std::max(best, 2 * common / static_cast<double>(given_words.size() + words.size()));
  }
  return best;
}

}  // namespace retro
