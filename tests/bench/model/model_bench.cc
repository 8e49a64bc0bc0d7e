// Our side of `tests/bench/run.sh decode`, `batch`, `prefill` and `load`: retro-425m with random weights, one JSON line
// a row.
//   model_bench decode | batch | prefill [THREADS]
//   model_bench device NAME             decode, batch and prefill on another device: for tests/gpu/run.sh
//   model_bench make FOLDER             writes the model's folder
//   model_bench load FOLDER STARTED     loads it; STARTED: when the process was started, in nanoseconds of the epoch
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/openmp.h"
#include "common/torch/device.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/random_init.h"
#include "generator_service/engine/model_runner.h"
#include "generator_service/engine/sampler.h"
#include "generator_service/model/compute_team.h"
#include "generator_service/model/model.h"
#include "generator_service/model/weight_table.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;
using WeightMap = std::map<std::string, at::Tensor>;

constexpr char kPreset[] = "retro-425m";
constexpr uint64_t kSeed = 1;
constexpr size_t kStreamBytes = size_t{2} << 30;
constexpr double kQuietBandwidth = 25e9;  // a machine that streams slower is not quiet
constexpr int64_t kNeighbours = 2;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << '\n';
  std::exit(1);
}

double SecondsOf(const std::function<void()>& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Two GiB to be read.
class Stream {
 public:
  Stream() : memory_(at::ones({static_cast<int64_t>(kStreamBytes / sizeof(float))})) {}

  // Bytes a second of reading all of it once with all threads.
  double Bandwidth() const {
    using Floats = float __attribute__((vector_size(32)));
    const auto* lines = reinterpret_cast<const Floats*>(memory_.const_data_ptr<float>());
    const double seconds = SecondsOf([&] {
      ShareOut(static_cast<int64_t>(kStreamBytes / 128), [&](int64_t begin, int64_t end) {
        Floats sums[4] = {};
        for (int64_t i = begin * 4; i < end * 4; i += 4) {
          for (int lane = 0; lane < 4; ++lane) sums[lane] += lines[i + lane];
        }
        const Floats total = sums[0] + sums[1] + sums[2] + sums[3];
        asm volatile("" : : "x"(total));  // it is wanted
      });
    });
    return static_cast<double>(kStreamBytes) / seconds;
  }

 private:
  const at::Tensor memory_;
};

bool IsReadForEachToken(const WeightSpec& spec, const ModelConfig& config) {
  if (spec.kind == WeightKind::kReadout) return true;
  if (spec.kind == WeightKind::kEmbedding) return config.tied_readout && spec.name == "decoder.embedding";
  if (spec.kind != WeightKind::kMatrix || !spec.name.starts_with("decoder.")) return false;
  if (spec.name.ends_with(".position")) return false;
  const bool of_neighbours =
      spec.name.find(".cca.") != std::string::npos && (spec.name.ends_with(".key") || spec.name.ends_with(".value"));
  return !of_neighbours;
}

int64_t WeightsOfAToken(const ModelConfig& config, bool readout) {
  int64_t count = 0;
  for (const WeightSpec& spec : WeightTable(config)) {
    if (IsReadForEachToken(spec, config) && (readout || spec.kind == WeightKind::kMatrix))
      count += spec.element_count();
  }
  return count;
}

double BytesOf(ModelNumbers numbers) {
  return numbers == ModelNumbers::kFp32 ? 4 : numbers == ModelNumbers::kFp16 ? 2 : 1;
}

// One text that grows by made-up tokens, with neighbours.
class Text {
 public:
  explicit Text(const RetroModel& model) : model_(model), sequence_(OrDie(model.NewSequence({}))) {}

  Piece Next(int64_t tokens) {
    const ModelConfig& config = model_.config();
    tokens_.resize(tokens);
    for (TokenId& token : tokens_) token = static_cast<TokenId>(++seed_ * 7919 % config.vocabulary);
    neighbours_.assign(sequence_->ChunksCompletedBy(tokens), {});
    for (ChunkNeighbours& chunk : neighbours_) {
      chunk.count = kNeighbours;
      for (int64_t i = 0; i < kNeighbours * config.neighbour_length; ++i) {
        chunk.tokens.push_back(static_cast<TokenId>(++seed_ * 104729 % config.vocabulary));
      }
    }
    return {.sequence = sequence_.get(), .tokens = tokens_, .neighbours = neighbours_};
  }

  void Prefill(int64_t tokens) {
    for (int64_t done = 0; done < tokens; done += 256) {
      const Piece piece = Next(std::min<int64_t>(256, tokens - done));
      OrDie(model_.Forward({&piece, 1}));
    }
  }

 private:
  const RetroModel& model_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<TokenId> tokens_;
  std::vector<ChunkNeighbours> neighbours_;
  uint64_t seed_ = 0;
};

// Waits for a device that computes while we go on: as a sampler does, by reading the likeliest token.
void Finish(const std::vector<at::Tensor>& logits) {
  if (!logits.back().is_cpu()) logits.back().argmax().item<int64_t>();
}

// Sessions of a model that have read `context` tokens, and then take one each a step. No more than 62 steps: in those
// no chunk ends, for the encoder has rows of its own.
class Decoding {
 public:
  Decoding(const RetroModel& model, int64_t context, int64_t sessions) : model_(model) {
    for (int64_t i = 0; i < sessions; ++i) {
      texts_.push_back(std::make_unique<Text>(model));
      texts_.back()->Prefill(context);
    }
  }

  // Seconds a step, median of so many.
  double StepSeconds(int64_t steps) {
    std::vector<double> seconds;
    for (int64_t step = 0; step < steps; ++step) {
      std::vector<Piece> pieces;
      for (const auto& text : texts_) pieces.push_back(text->Next(1));
      seconds.push_back(SecondsOf([&] { Finish(OrDie(model_.Forward(pieces))); }));
    }
    return Median(seconds);
  }

 private:
  const RetroModel& model_;
  std::vector<std::unique_ptr<Text>> texts_;
};

std::unique_ptr<RetroModel> MakeModel(const ModelConfig& config, const WeightMap& weights, ModelNumbers numbers,
                                      const std::string& device = "cpu") {
  return OrDie(RetroModel::Create(config, weights, device, {.numbers = numbers}));
}

Json Row(const std::string& bench, double ours, double wanted, const std::string& unit, bool at_most, bool valid) {
  const double ratio = at_most ? wanted / ours : ours / wanted;
  return {{"bench", bench}, {"ours", ours},   {"peer", wanted},     {"peer_name", "target"},
          {"unit", unit},   {"ratio", ratio}, {"pass", ratio >= 1}, {"valid", valid}};
}

// Status 1 if a valid row does not pass, 3 if one is not valid.
int PrintRows(const std::vector<Json>& rows) {
  int status = 0;
  for (const Json& row : rows) {
    std::cout << row.dump() << std::endl;
    if (!row["valid"].get<bool>()) status = status == 0 ? 3 : status;
    if (row["valid"].get<bool>() && !row["pass"].get<bool>()) status = 1;
  }
  return status;
}

// What is compared is measured in turns, a moment after each other, and the median of the rounds' ratios counts: memory
// that others use too is twice as fast in one second as in the next.
constexpr int kRounds = 15;
constexpr int64_t kStepsOfARound = 4;

// A model's share of the bandwidth, round by round.
struct FormatRounds {
  ModelNumbers numbers;
  std::unique_ptr<RetroModel> model;
  std::vector<double> seconds;  // a token
  std::vector<double> streams;  // bytes a second, just before and after
};

std::vector<FormatRounds> MeasureFormats(std::vector<FormatRounds> formats) {
  const Stream stream;
  std::vector<Decoding> decodings;
  for (const FormatRounds& format : formats) decodings.emplace_back(*format.model, 512, 1);
  double before = stream.Bandwidth();
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < formats.size(); ++i) {
      formats[i].seconds.push_back(decodings[i].StepSeconds(kStepsOfARound));
      const double after = stream.Bandwidth();
      formats[i].streams.push_back((before + after) / 2);
      before = after;
    }
  }
  return formats;
}

// Median of a[i] / b[i].
double MedianRatio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
  return Median(ratios);
}

Json FormatRow(const FormatRounds& format, double bytes) {
  std::vector<double> bandwidths;
  for (const double seconds : format.seconds) bandwidths.push_back(bytes / seconds);
  const double stream = Median(format.streams);
  Json row = Row("decode " + std::string(ModelNumbersName(format.numbers)) + " share of the memory's bandwidth",
                 MedianRatio(bandwidths, format.streams), 0.75, "", false, stream >= kQuietBandwidth);
  row["tokens_per_second"] = 1 / Median(format.seconds);
  row["stream_gb_per_second"] = stream / 1e9;
  return row;
}

Json ContextRow(const RetroModel& model) {
  Decoding late(model, 1984, 1);
  Decoding early(model, 128, 1);
  std::vector<double> late_seconds;
  std::vector<double> early_seconds;
  for (int round = 0; round < kRounds; ++round) {
    late_seconds.push_back(late.StepSeconds(kStepsOfARound));
    early_seconds.push_back(early.StepSeconds(kStepsOfARound));
  }
  return Row("decode fp16 time a token, context 2048 over 128", MedianRatio(late_seconds, early_seconds), 1.3, "", true,
             true);
}

int Decode(const ModelConfig& config, WeightMap weights) {
  std::vector<FormatRounds> formats;
  for (const ModelNumbers numbers : {ModelNumbers::kFp32, ModelNumbers::kFp16, ModelNumbers::kInt8})
    formats.push_back({.numbers = numbers, .model = MakeModel(config, weights, numbers)});
  weights.clear();  // room for the stream
  formats = MeasureFormats(std::move(formats));
  const auto weights_of_a_token = static_cast<double>(WeightsOfAToken(config, /*readout=*/true));
  std::vector<Json> rows;
  for (const FormatRounds& format : formats)
    rows.push_back(FormatRow(format, weights_of_a_token * BytesOf(format.numbers)));
  rows.push_back(ContextRow(*formats[1].model));
  rows.push_back(
      Row("decode fp16 over fp32", MedianRatio(formats[0].seconds, formats[1].seconds), 1.8, "", false, true));
  rows.push_back(
      Row("decode int8 over fp16", MedianRatio(formats[1].seconds, formats[2].seconds), 1.5, "", false, true));
  return PrintRows(rows);
}

int Batch(const ModelConfig& config, const WeightMap& weights) {
  const auto model = MakeModel(config, weights, ModelNumbers::kFp16);
  Decoding one(*model, 512, 1);
  Decoding eight(*model, 512, 8);
  std::vector<double> one_seconds;
  std::vector<double> eight_seconds;
  for (int round = 0; round < kRounds; ++round) {
    one_seconds.push_back(one.StepSeconds(kStepsOfARound));
    eight_seconds.push_back(eight.StepSeconds(kStepsOfARound));
  }
  Json row = Row("batch fp16 tokens a second of 8 sessions over 1", 8 * MedianRatio(one_seconds, eight_seconds), 3, "",
                 false, true);
  row["tokens_per_second"] = {{"1", 1 / Median(one_seconds)}, {"8", 8 / Median(eight_seconds)}};
  return PrintRows({row});
}

double SgemmFlops() {
  const at::Tensor x = at::randn({256, 1536});
  const at::Tensor w = at::randn({6144, 1536});
  double best = 0;
  for (int round = 0; round < 10; ++round) {
    best = std::max(best, 2.0 * 256 * 1536 * 6144 / SecondsOf([&] { at::linear(x, w); }));
  }
  return best;
}

int Prefill(const ModelConfig& config, const WeightMap& weights) {
  std::vector<Json> rows;
  for (const ModelNumbers numbers : {ModelNumbers::kFp16, ModelNumbers::kInt8}) {
    const auto model = MakeModel(config, weights, numbers);
    constexpr int64_t kTokens = 1024;
    // The paper's count of weights for each token. It leaves out what is done besides: the encoder takes four tokens of
    // neighbours for each of the text's, and the attentions have no weights.
    const double flops = 2.0 * static_cast<double>(CountMatrixParameters(WeightTable(config))) * kTokens;
    std::vector<double> ours;   // flops a second
    std::vector<double> sgemm;  // just before and after
    double before = SgemmFlops();
    for (int round = 0; round < 3; ++round) {
      ours.push_back(flops / SecondsOf([&] { Text(*model).Prefill(kTokens); }));
      const double after = SgemmFlops();
      sgemm.push_back((before + after) / 2);
      before = after;
    }
    rows.push_back(Row("prefill " + std::string(ModelNumbersName(numbers)) + " share of sgemm, pieces of 256",
                       MedianRatio(ours, sgemm), 0.6, "", false, true));
    const double decoder = 2.0 * static_cast<double>(WeightsOfAToken(config, /*readout=*/false)) * kTokens;
    rows.back()["gflops"] = Median(ours) / 1e9;
    rows.back()["tokens_per_second"] = Median(ours) / flops * kTokens;
    rows.back()["share_of_the_decoders_weights_alone"] = MedianRatio(ours, sgemm) * decoder / flops;
    rows.back()["sgemm_gflops"] = Median(sgemm) / 1e9;
  }
  return PrintRows(rows);
}

// Bytes a second of copying 1 GiB within the device, reads and writes counted, best of ten.
double CopyBandwidth(const at::Device& device) {
  const at::Tensor from = at::ones({int64_t{1} << 28}, at::TensorOptions().device(device));
  at::Tensor to = at::empty_like(from);
  double best = 0;
  for (int round = 0; round < 10; ++round) {
    const double seconds = SecondsOf([&] {
      to.copy_(from);
      to[0].item<float>();
    });
    best = std::max(best, 2.0 * static_cast<double>(from.nbytes()) / seconds);
  }
  return best;
}

// A session as the engine would feed it: a prompt, then one sampled token after the other.
struct DrivenSession {
  StepItem item;
  std::vector<TokenId> tokens;
  SamplingSettings settings;
  SeenTokens seen;
};

// Sampled by the step, or here on the host.
TokenId NextToken(const absl::StatusOr<StepOutput>& output, const DrivenSession& session, uint64_t index,
                  Sampler& sampler) {
  if (!output.ok()) {
    std::cerr << output.status() << '\n';
    std::exit(1);
  }
  if (output->sampled.has_value()) return output->sampled->id;
  return OrDie(sampler.Sample(output->logits, session.settings, session.seen, index)).id;
}

// Seconds a step, mean of the 64 of a chunk from context 576 on, its neighbours at its end and sampling included, of
// sessions that decode through the engine's runner. Where there is no decoder the host samples.
double StepSeconds(const RetroModel& model, int64_t sessions, std::unique_ptr<FixedDecoder> decoder) {
  const ModelConfig& config = model.config();
  constexpr int64_t kContext = 512;
  const int64_t m = config.chunk_length;
  const std::vector<TokenId> neighbours(kNeighbours * config.neighbour_length, 17);
  const FixedDecoder* const used = decoder.get();
  ModelRunner runner(model, 0, std::move(decoder));
  Sampler sampler(config.vocabulary);
  std::vector<DrivenSession> driven;
  for (int64_t s = 0; s < sessions; ++s) {
    DrivenSession& session = driven.emplace_back(DrivenSession{.seen = SeenTokens(config.vocabulary)});
    for (int64_t i = 0; i < kContext; ++i) session.tokens.push_back(static_cast<TokenId>(i * 7919 % config.vocabulary));
    session.item = {.sequence = static_cast<uint64_t>(s), .begins = true, .retrieval = true, .logit_rows = 1};
    session.item.tokens = session.tokens;
    session.item.neighbours.assign(kContext / m, ChunkNeighbours{kNeighbours, neighbours});
  }
  std::vector<double> seconds;
  for (int64_t step = 0; step <= 2 * m; ++step) {  // the prompt, a chunk in which graphs are captured, and one more
    std::vector<StepItem> items;
    for (DrivenSession& session : driven) items.push_back(session.item);
    seconds.push_back(SecondsOf([&] {
      std::vector<absl::StatusOr<StepOutput>> outputs = runner.Step(items);
      for (int64_t s = 0; s < sessions; ++s) {
        DrivenSession& session = driven[s];
        const auto index = static_cast<uint64_t>(kContext + step);
        const TokenId next = NextToken(outputs[s], session, index, sampler);
        session.tokens = {next};
        session.item = {
            .sequence = static_cast<uint64_t>(s), .retrieval = true, .tokens = session.tokens, .logit_rows = 1};
        session.item.sampling = {&session.settings, &session.seen, index + 1};
        if ((kContext + step + 1) % m == 0) session.item.neighbours = {ChunkNeighbours{kNeighbours, neighbours}};
      }
    }));
  }
  if (used != nullptr && used->rows() < 2 * m * sessions) std::cerr << "not all rows were of fixed shape\n";
  return std::accumulate(seconds.end() - m, seconds.end(), 0.0) / static_cast<double>(m);
}

// The engine's step kernel by kernel, of fixed shape, and captured.
void PrintSteps(const std::string& device, const RetroModel& model) {
  const auto report = [](const absl::Status& why) { std::cerr << why << '\n'; };
  for (const int64_t sessions : {1, 4, 16, 32}) {
    for (const std::string path : {"eager", "fixed", "captured"}) {
      if (path == "eager" && sessions > 4) continue;  // by the piece: it takes a quarter of a minute
      std::unique_ptr<FixedDecoder> decoder;
      if (path != "eager") {
        decoder = OrDie(
            FixedDecoder::Create(model, {.rows_max = sessions, .captures = path == "captured", .on_failure = report}));
      }
      const double seconds = StepSeconds(model, sessions, std::move(decoder));
      const Json row = {{"bench", "decode bf16, ends of chunks and sampling included"},
                        {"device", device},
                        {"path", path},
                        {"sessions", sessions},
                        {"tokens_per_second", static_cast<double>(sessions) / seconds}};
      std::cout << row.dump() << std::endl;
    }
  }
}

// There is no promise for a device: the rows have no "pass".
int OnDevice(const std::string& name, const ModelConfig& config, const WeightMap& weights) {
  const auto model = MakeModel(config, weights, ModelNumbers::kBf16, name);
  const double bandwidth = CopyBandwidth(OrDie(OpenDevice(name)));
  const double read = 2.0 * static_cast<double>(WeightsOfAToken(config, /*readout=*/true));
  for (const int64_t sessions : {1, 4}) {
    const double seconds = Decoding(*model, 512, sessions).StepSeconds(60);
    const Json row = {{"bench", "decode bf16"},     {"device", name},
                      {"sessions", sessions},       {"tokens_per_second", static_cast<double>(sessions) / seconds},
                      {"ours", read / seconds},     {"peer", bandwidth},
                      {"peer_name", "device copy"}, {"ratio", read / seconds / bandwidth}};
    std::cout << row.dump() << std::endl;
  }
  if (name != "cpu") PrintSteps(name, *model);  // on which bf16 takes hours
  constexpr int64_t kTokens = 1024;
  constexpr int kRuns = 5;
  std::vector<double> seconds;
  for (int run = 0; run <= kRuns; ++run) {
    seconds.push_back(SecondsOf([&] {
      Text text(*model);
      text.Prefill(kTokens);
      const Piece last = text.Next(1);
      Finish(OrDie(model->Forward({&last, 1})));
    }));
  }
  seconds.erase(seconds.begin());  // in which memory is taken
  const Json row = {{"bench", "prefill bf16"}, {"device", name}, {"tokens_per_second", kTokens / Median(seconds)}};
  std::cout << row.dump() << std::endl;
  return 0;
}

int64_t ResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

double PackedBytes(const ModelConfig& config) {
  double bytes = 0;
  for (const WeightSpec& spec : WeightTable(config)) {
    if (!spec.name.ends_with(".position")) bytes += 2.0 * static_cast<double>(spec.element_count());
  }
  const double rows = static_cast<double>(config.layers * (config.max_length + 1));
  return bytes + 2.0 * rows * static_cast<double>(config.heads * config.head_size);
}

int Load(const std::string& folder, int64_t started_ns) {
  const LoadedModel loaded = OrDie(LoadModel(folder, "cpu", {.numbers = ModelNumbers::kFp16}));
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const double seconds = std::chrono::duration<double>(now).count() - static_cast<double>(started_ns) / 1e9;
  const double packed = PackedBytes(loaded.info.config);
  Json memory = Row("load fp16 resident memory over packed weights and tables",
                    static_cast<double>(ResidentBytes()) / packed, 1.15, "", true, true);
  memory["resident_mib"] = static_cast<double>(ResidentBytes()) / (1 << 20);
  return PrintRows({Row("load fp16 seconds from the page cache", seconds, 3, "s", true, true), memory});
}

int Main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "load" && argc == 4) return Load(argv[2], std::stoll(argv[3]));
  const ModelConfig config = OrDie(PresetModelConfig(kPreset));
  WeightMap weights = OrDie(RandomWeights(config, kSeed));
  if (command == "device" && argc == 3) return OnDevice(argv[2], config, weights);
  if (command == "make" && argc == 3) {
    CheckpointInfo info;
    info.config = config;
    OrDie(SaveCheckpoint(argv[2], info, weights, ""));
    return 0;
  }
  at::set_num_threads(argc > 2 ? std::stoi(argv[2]) : 2);
  if (command == "decode") return Decode(config, std::move(weights));
  if (command == "batch") return Batch(config, weights);
  if (command == "prefill") return Prefill(config, weights);
  std::cerr << "usage: model_bench decode|batch|prefill [THREADS] | device NAME | make FOLDER | load FOLDER STARTED\n";
  return 2;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  retro::EnsurePassiveOpenMp(argv);
  return retro::Main(argc, argv);
}
