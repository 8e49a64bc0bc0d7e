#include "trainer/evaluation/text_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <sstream>
#include <utility>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "generator_service/model/weight_table.h"

namespace retro {
namespace {

constexpr std::array<double, 4> kSharesBelow = {0.125, 0.25, 0.5, 1.0};

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

double Bytes(const DocumentScores& document) {
  return static_cast<double>(std::accumulate(document.bytes.begin(), document.bytes.end(), uint64_t{0}));
}

// Of the chunks whose shared share is at most `below`.
double FilteredBits(const DocumentScores& document, size_t run, double below) {
  double bits = 0;
  for (size_t chunk = 0; chunk < document.shared.size(); ++chunk) {
    if (document.shared[chunk] <= below) bits += document.bits[run][chunk];
  }
  return bits;
}

double FilteredBytes(const DocumentScores& document, double below) {
  uint64_t bytes = 0;
  for (size_t chunk = 0; chunk < document.shared.size(); ++chunk) {
    if (document.shared[chunk] <= below) bytes += document.bytes[chunk];
  }
  return static_cast<double>(bytes);
}

using OfDocument = std::function<double(const DocumentScores& document)>;

// A ratio of sums over documents.
HeaderJson RatioFigure(const std::vector<DocumentScores>& documents, uint64_t seed, const OfDocument& numerator,
                       const OfDocument& denominator) {
  std::vector<RatioTerm> terms;
  terms.reserve(documents.size());
  for (const DocumentScores& document : documents) {
    terms.push_back({numerator(document), denominator(document), document.family});
  }
  return ToJson(BootstrapRatio(terms, seed));
}

HeaderJson LeakageFigures(const std::vector<DocumentScores>& documents, size_t run, std::optional<size_t> off,
                          uint64_t seed) {
  HeaderJson leakage = HeaderJson::array();
  for (const double below : kSharesBelow) {
    const auto bits = [&](size_t of) {
      return [of, below](const DocumentScores& document) { return FilteredBits(document, of, below); };
    };
    const OfDocument bytes = [below](const DocumentScores& document) { return FilteredBytes(document, below); };
    double sum = 0;
    for (const DocumentScores& document : documents) sum += bytes(document);
    HeaderJson row = {{"shared_at_most", below}, {"bytes", static_cast<uint64_t>(sum)}};
    row.update(RatioFigure(documents, seed, bits(run), bytes));
    if (off) row["to_no_retrieval"] = RatioFigure(documents, seed, bits(run), bits(*off));
    leakage.push_back(row);
  }
  return leakage;
}

HeaderJson SourceFigures(const std::vector<DocumentScores>& documents, size_t run, uint64_t seed) {
  std::map<std::string, std::vector<RatioTerm>> sources;
  for (const DocumentScores& document : documents) {
    sources[SourceOf(document.id)].push_back({Sum(document.bits[run]), Bytes(document), document.family});
  }
  HeaderJson figures = HeaderJson::object();
  for (const auto& [source, of_source] : sources) {
    double bytes = 0;
    for (const RatioTerm& term : of_source) bytes += term.denominator;
    figures[source] = ToJson(BootstrapRatio(of_source, seed));
    figures[source]["documents"] = of_source.size();
    figures[source]["bytes"] = static_cast<uint64_t>(bytes);
  }
  return figures;
}

HeaderJson RunFigures(const TextEvaluationOptions& options, const std::vector<DocumentScores>& documents, size_t run) {
  const auto bits = [](size_t of) { return [of](const DocumentScores& document) { return Sum(document.bits[of]); }; };
  HeaderJson figures = {{"k", options.k[run]},
                        {"bits_per_byte", RatioFigure(documents, options.seed, bits(run), Bytes)}};
  const auto found = std::ranges::find(options.k, 0);
  std::optional<size_t> off;
  if (found != options.k.end()) off = found - options.k.begin();
  if (off) figures["to_no_retrieval"] = RatioFigure(documents, options.seed, bits(run), bits(*off));
  figures["leakage"] = LeakageFigures(documents, run, off, options.seed);
  figures["sources"] = SourceFigures(documents, run, options.seed);
  return figures;
}

}  // namespace

HeaderJson ToJson(const Interval& interval) {
  return {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
}

std::string SourceOf(const std::string& id) {
  const size_t slash = id.find('/');
  return id.substr(0, slash != std::string::npos ? slash : id.rfind('-'));
}

absl::StatusOr<std::vector<DocumentScores>> ScoreDocuments(const EvaluatedModel& evaluated,
                                                           const TextEvaluationOptions& options, const Report& report) {
  const DataSet& data = *evaluated.text.data;
  RETRO_ASSIGN_OR_RETURN(std::vector<std::string> ids, DocumentIds(data));
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> families, DocumentFamilies(data));
  if (options.documents_max > 0 && options.documents_max < ids.size()) ids.resize(options.documents_max);
  std::vector<DocumentScores> documents(ids.size());
  for (size_t d = 0; d < ids.size(); ++d) {
    DocumentScores& document = documents[d];
    document.id = ids[d];
    document.family = families[d];
    for (const int64_t k : options.k) {
      RETRO_ASSIGN_OR_RETURN(
          const std::vector<ChunkScore> scores,
          ScoreDocument(evaluated, d,
                        {.k = k, .form = options.form, .seed = options.seed, .tokens_max = options.tokens_max}));
      std::vector<double>& bits = document.bits.emplace_back();
      document.bytes.clear();
      for (const ChunkScore& score : scores) {
        bits.push_back(score.bits);
        document.bytes.push_back(score.bytes);
      }
    }
    for (size_t chunk = 0; evaluated.text.table() != nullptr && chunk < document.bytes.size(); ++chunk) {
      document.shared.push_back(SharedShare(evaluated, data.first_chunk(d) + chunk, kLeakageNeighbours));
    }
    report(StrCat("scored ", d + 1, " of ", ids.size(), " documents"));
  }
  return documents;
}

HeaderJson EvaluatedHeader(const EvaluatedModel& evaluated, const EvaluationOptions& options) {
  const DataSet& data = *evaluated.text.data;
  HeaderJson store = HeaderJson::array();
  std::string embedder;
  if (evaluated.text.table() != nullptr) {
    const NeighbourHeader& header = evaluated.text.table()->header();
    embedder = header.embedder_fingerprint;
    for (const DatabaseRef& ref : header.databases) {
      store.push_back({{"name", ref.path}, {"fingerprint", ref.fingerprint}, {"chunks", ref.chunks}});
    }
  }
  return {{"model",
           {{"revision", evaluated.info.revision},
            {"parameters", CountParameters(WeightTable(evaluated.info.config))},
            {"numbers", options.numbers},
            {"conditioning", options.conditioning}}},
          {"text", {{"fingerprint", data.header().fingerprint}, {"documents", data.header().documents}}},
          {"store", store},
          {"embedder", embedder},
          {"effort", "exact"}};
}

HeaderJson TextReport(const EvaluatedModel& evaluated, const TextEvaluationOptions& options,
                      const std::vector<DocumentScores>& documents) {
  HeaderJson report = {{"what", "bits per byte"}};
  report.update(EvaluatedHeader(evaluated, options.evaluated));
  report["neighbours"] = std::string(NeighbourFormName(options.form));
  report["seed"] = options.seed;
  report["tokens_per_document_max"] = options.tokens_max;
  report["runs"] = HeaderJson::array();
  for (size_t run = 0; run < options.k.size(); ++run) report["runs"].push_back(RunFigures(options, documents, run));
  report["documents"] = HeaderJson::array();
  for (const DocumentScores& document : documents) {
    HeaderJson bits = HeaderJson::array();
    for (const std::vector<double>& of_run : document.bits) bits.push_back(Sum(of_run));
    report["documents"].push_back({{"id", document.id},
                                   {"family", document.family},
                                   {"bytes", static_cast<uint64_t>(Bytes(document))},
                                   {"bits", bits}});
  }
  return report;
}

std::string TextTable(const HeaderJson& report) {
  const auto interval = [](const HeaderJson& figure) {
    return fmt::format("{:.4f} [{:.4f}, {:.4f}]", figure["value"].get<double>(), figure["low"].get<double>(),
                       figure["high"].get<double>());
  };
  std::string table = fmt::format("{:>3}  {:<26}{:<26}", "k", "bits per byte", "to no retrieval");
  for (const double below : kSharesBelow) table += fmt::format("{:>10}", fmt::format("<= {}%", 100 * below));
  table += '\n';
  for (const HeaderJson& run : report["runs"]) {
    table += fmt::format("{:>3}  {:<26}{:<26}", run["k"].get<int64_t>(), interval(run["bits_per_byte"]),
                         run.contains("to_no_retrieval") ? interval(run["to_no_retrieval"]) : "");
    for (const HeaderJson& row : run["leakage"]) table += fmt::format("{:>10.4f}", row["value"].get<double>());
    table += '\n';
  }
  return table;
}

}  // namespace retro
