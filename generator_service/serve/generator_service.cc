#include "generator_service/serve/generator_service.h"

#include <algorithm>
#include <utility>

#include "common/base/byte_budget.h"
#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/base/worker_pool.h"
#include "common/rpc/log.h"
#include "common/rpc/message.h"
#include "common/rpc/peer_watch.h"
#include "generator_service/engine/engine.h"
#include "generator_service/engine/model_runner.h"
#include "generator_service/model/weight_table.h"
#include "generator_service/serve/generate_stream.h"
#include "generator_service/serve/model_health.h"
#include "generator_service/serve/model_message.h"
#include "generator_service/serve/request_parser.h"
#include "generator_service/serve/retriever_client.h"
#include "generator_service/serve/retriever_probe.h"
#include "generator_service/serve/score_call.h"
#include "retro/generator/v1/generator.grpc.pb.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;

// Of the time to drain, what remains for the finish events of what was cut to reach their readers.
constexpr int kDrainShare = 5;
// Requests that are read and tokenised at once, and that wait for it.
constexpr int kParsersMax = 2;
constexpr size_t kRequestsQueuedMax = 64;
// The largest request: all given neighbours that a generation may have, and a prompt beside them.
constexpr int kMessageBytesMax = 20 << 20;

using Rpcs = pb::GeneratorService;
using ServiceBase = Rpcs::WithRawCallbackMethod_Generate<
    Rpcs::WithRawCallbackMethod_Score<Rpcs::WithRawCallbackMethod_GetModel<Rpcs::Service>>>;

class GeneratorRpcs : public ServiceBase {
 public:
  // All must outlive this.
  GeneratorRpcs(const ServedModel& model, const StoreView& store, const RequestParser& parser, WorkerPool& workers,
                Engine& engine, Metrics& metrics, GeneratorMetrics& generator_metrics, ByteBudget& budget,
                const GeneratorOptions& options)
      : model_(model),
        store_(store),
        parser_(parser),
        workers_(workers),
        engine_(engine),
        metrics_(metrics),
        generator_metrics_(generator_metrics),
        budget_(budget),
        stall_ms_max_(options.limits.stall_ms_max),
        peers_(stall_ms_max_),
        access_(options.server.access.get()) {}
  ~GeneratorRpcs() override { TakeOver(&told_); }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override {
    TakeOver(this);
    CallContext call = MakeCallContext(*context);
    const absl::Status allowed = Admit(access_, *context, "Generate", call);
    HeldBytes held(budget_, call.key());
    const absl::Status admitted = MakeRoom(allowed, *request, held);
    const auto stream = GenerateStream::Create(*context, CallRecord(metrics_, "Generate", call), std::move(held),
                                               engine_, generator_metrics_, stall_ms_max_);
    InBackground<pb::GenerateRequest>(
        stream, *request, call, admitted,
        [this, call](const pb::GenerateRequest& message) { return parser_.ParseGenerate(message, call); });
    HandOver(&told_);
    return stream.get();
  }

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* reply) override {
    TakeOver(this);
    CallContext call = MakeCallContext(*context);
    const absl::Status allowed = Admit(access_, *context, "Score", call);
    HeldBytes held(budget_, call.key());
    const absl::Status admitted = MakeRoom(allowed, *request, held);
    const auto score = ScoreCall::Create(*context, CallRecord(metrics_, "Score", call), std::move(held), engine_,
                                         generator_metrics_, peers_, reply);
    InBackground<pb::ScoreRequest>(score, *request, call, admitted, [this, call](const pb::ScoreRequest& message) {
      return parser_.ParseScore(message, call);
    });
    HandOver(&told_);
    return score.get();
  }

  // The request has no fields, so it is not read.
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* /*request*/,
                                     grpc::ByteBuffer* reply) override {
    TakeOver(this);
    CallContext call = MakeCallContext(*context);
    const absl::Status admitted = Admit(access_, *context, "GetModel", call);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (admitted.ok()) SerializeMessage(ModelMessage(model_, store_.Warnings()), *reply);
    const grpc::Status answer = CallRecord(metrics_, "GetModel", call).Finish(admitted);
    HandOver(&told_);
    reactor->Finish(answer);
    return reactor;
  }

 private:
  // Whether an allowed caller's request, which `held` then holds, has room.
  static absl::Status MakeRoom(const absl::Status& allowed, const grpc::ByteBuffer& request, HeldBytes& held) {
    if (!allowed.ok() || held.TryAdd(request.Length())) return allowed;
    return UnaryRunner::MemoryFullError();
  }

  // Requests are parsed and their prompts tokenised by a worker, so that gRPC's threads stay free for the streams that
  // run. A request whose caller has left meanwhile is dropped. `request` is gRPC's, until the reactor's OnDone.
  template <typename Message>
  void InBackground(const auto& reactor, const grpc::ByteBuffer& request, const CallContext& call,
                    const absl::Status& admitted, const auto& parse) {
    if (!admitted.ok()) return reactor->Start(admitted);
    const auto work = [this, reactor, &request, call, parse, arrival = Clock::now()] {
      absl::Status wanted = call.Check();
      if (absl::IsCancelled(wanted)) wanted = CallerLeftError(arrival, call.deadline, Clock::now());
      if (!wanted.ok()) return reactor->Start(wanted);
      Message message;
      HeldBytes parsed(budget_, call.key());  // of the message; what stays of it is held by its RetrievalScope
      const absl::Status read = ParseRequest(request, message, [&parsed](size_t bytes) {
        return parsed.TryAdd(bytes) ? absl::OkStatus() : UnaryRunner::MemoryFullError();
      });
      if (!read.ok()) return reactor->Start(read);
      reactor->Start(parse(message));
    };
    const bool taken = workers_.Submit(work, call.key());
    if (!taken) reactor->Start(QueueFullError("the queue of requests", UnaryRunner::kRetryAfter));
  }

  const ServedModel& model_;
  const StoreView& store_;
  const RequestParser& parser_;
  WorkerPool& workers_;
  Engine& engine_;
  Metrics& metrics_;
  GeneratorMetrics& generator_metrics_;
  ByteBudget& budget_;
  const std::chrono::milliseconds stall_ms_max_;
  PeerWatch peers_;  // that are sent an answer of Score
  AccessControl* const access_;
  char told_ = 0;  // for TakeOver: what the calls did that end where they come
};

// As many as the engine takes come at once at most: none of them is refused before it has been looked at.
size_t RequestsQueuedMax(const SchedulerLimits& limits) {
  return std::max(kRequestsQueuedMax, static_cast<size_t>(limits.sessions_max + limits.waiting_max));
}

NeighbourShape ShapeOf(const ServedModel& model) {
  const ModelConfig& config = model.config();
  return {config.chunk_length, config.neighbour_length, config.vocabulary, static_cast<TokenId>(config.pad_id)};
}

// Where the whole of a step is computed at this pace, in parameters times tokens a second, it does not hang yet: one
// core does ten times as much.
constexpr int64_t kSlowestPace = 1'000'000'000;

std::chrono::milliseconds StepMax(const GeneratorOptions& options, const ServedModel& model) {
  if (model.model->device() != "cpu") return options.step_max;
  const double work = static_cast<double>(CountMatrixParameters(WeightTable(model.config()))) *
                      static_cast<double>(options.limits.prefill_tokens_max);
  const std::chrono::duration<double> slowest(work / kSlowestPace);
  return std::max(options.step_max, std::chrono::duration_cast<std::chrono::milliseconds>(slowest));
}

// On a GPU a step is a matter of launches: so many tokens take hardly longer than one.
constexpr int64_t kDevicePrefillTokens = 128;
// But for those that are scored: the host goes through the vocabulary for each.
constexpr int64_t kDeviceScoredRowTokens = 4;

EngineOptions OptionsOf(const GeneratorOptions& options, const ServedModel& model, GeneratorMetrics& metrics,
                        ModelHealth& health) {
  EngineOptions engine;
  const ModelConfig& config = model.config();
  engine.facts = {.vocabulary = config.vocabulary,
                  .chunk_length = config.chunk_length,
                  .context_length = config.max_length,
                  .pad_id = static_cast<TokenId>(config.pad_id),
                  .tokenizer = model.tokenizer.get(),
                  .neighbour_tokens = NeighbourCacheTokens(config)};
  engine.limits = options.limits;
  engine.limits.cache_blocks_max = model.model->cache_blocks();
  if (model.model->device() != "cpu") {
    const int64_t wanted = std::max(options.limits.prefill_tokens_shared_max, kDevicePrefillTokens);
    const int64_t tokens = std::min(wanted, options.limits.prefill_tokens_max);
    engine.limits.prefill_tokens_shared_min = engine.limits.prefill_tokens_shared_max = tokens;
    engine.limits.scored_row_tokens = kDeviceScoredRowTokens;
  }
  engine.on_step_begin = [&health] { health.OnStepBegin(); };
  engine.on_step = [&metrics, &health](const StepReport& step) {
    metrics.OnStep(step);
    health.OnStep(step);
  };
  return engine;
}

}  // namespace

// Each slot of a decoder takes memory: the sessions past these are computed without it.
constexpr int64_t kFixedRowsMax = 64;

// On CUDA decoding is a matter of launches: there it is done by captured steps, if the model has them.
std::unique_ptr<FixedDecoder> MakeDecoder(const GeneratorOptions& options, const RetroModel& model) {
  if (model.device() == "cpu" || !options.cuda_graphs) return nullptr;
  const auto report = [](const absl::Status& why) {
    LogEvent(spdlog::level::warn, "no_cuda_graphs", {{"reason", std::string(why.message())}});
  };
  auto decoder = FixedDecoder::Create(
      model, {.rows_max = std::min(options.limits.sessions_max, kFixedRowsMax), .on_failure = report});
  if (decoder.ok()) return *std::move(decoder);
  report(decoder.status());
  return nullptr;
}

// In the order that they depend on each other; the server, which is the way in, is stopped first.
struct Generator::Parts {
  Parts(const GeneratorOptions& all_options, ServedModel served, std::shared_ptr<grpc::Channel> retriever_channel,
        Metrics& process_metrics)
      : options(all_options),
        model(std::move(served)),
        metrics(process_metrics, model.model->cache_blocks()),
        health(StepMax(options, model)),
        request_bytes(options.request_bytes_max),
        store(model),
        tokens(*model.tokenizer, ShapeOf(model), options.retokenised_cache_chunks_max),
        parser(model, tokens, options.neighbours_max, request_bytes),
        retriever(std::move(retriever_channel), options.retriever, model, tokens, store, request_bytes),
        engine(OptionsOf(options, model, metrics, health),
               std::make_unique<ModelRunner>(*model.model, options.threads, MakeDecoder(options, *model.model)),
               retriever),
        workers(kParsersMax, RequestsQueuedMax(options.limits)),
        rpcs(model, store, parser, workers, engine, process_metrics, metrics, request_bytes, options) {
    prometheus::Gauge& waiting = process_metrics.Gauge(
        "retro_requests_waiting", "Requests that wait for a worker, by queue.", {{"queue", "requests"}});
    prometheus::Gauge& held = process_metrics.Gauge("retro_request_bytes",
                                                    "Bytes of requests and replies in memory, of --request-bytes-max.");
    process_metrics.BeforeScrape([this, &waiting, &held] {
      waiting.Set(static_cast<double>(workers.queued()));
      held.Set(static_cast<double>(request_bytes.bytes()));
    });
  }

  const GeneratorOptions options;
  const ServedModel model;
  GeneratorMetrics metrics;
  ModelHealth health;
  ByteBudget request_bytes;
  StoreView store;
  NeighbourTokens tokens;
  const RequestParser parser;
  RetrieverClient retriever;
  Engine engine;
  WorkerPool workers;
  GeneratorRpcs rpcs;
  std::unique_ptr<RpcServer> server;
  std::unique_ptr<RetrieverProbe> probe;
};

Generator::Generator(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Generator::~Generator() { Stop(); }

absl::StatusOr<std::unique_ptr<Generator>> Generator::Start(const GeneratorOptions& options, ServedModel model,
                                                            Metrics& metrics) {
  RETRO_RETURN_IF_ERROR(CheckCacheBlocks(model.info, model.model->cache_blocks()));
  auto channel = MakeRetrieverChannel(options.retriever, options.retriever_security);
  if (!channel.ok()) return channel.status();
  auto parts = std::make_unique<Parts>(options, std::move(model), *std::move(channel), metrics);
  ServerOptions server_options = options.server;
  server_options.message_bytes_max = std::min(server_options.message_bytes_max, kMessageBytesMax);
  server_options.admitted_bytes_max = options.request_bytes_max;
  HandOver(&parts->rpcs);
  auto server = RpcServer::Start(server_options, {&parts->rpcs});
  if (!server.ok()) return server.status();
  parts->server = *std::move(server);
  const auto set_model = [server = parts->server.get()](bool well) {
    server->SetServing("", well);  // what is beyond repair has to be started again
    server->SetServing(kGeneratorHealth, well);
  };
  set_model(true);
  parts->server->SetServing(kRetrievalHealth, false);
  parts->health.Watch(set_model);
  parts->probe =
      std::make_unique<RetrieverProbe>(parts->retriever, parts->store, options.probe_ms,
                                       [server = parts->server.get(), health = &parts->health](bool reachable) {
                                         server->SetServing(kRetrievalHealth, reachable);
                                         health->Look();
                                       });
  return std::unique_ptr<Generator>(new Generator(std::move(parts)));
}

void Generator::Stop() {
  if (parts_ == nullptr || parts_->server == nullptr) return;
  const std::chrono::milliseconds drain = parts_->options.server.drain_max;
  parts_->engine.Drain(Clock::now() + drain - drain / kDrainShare);
  parts_->health.Watch(nullptr);
  parts_->server->Stop();
  parts_->probe.reset();  // which uses the server
  parts_->server.reset();
}

int Generator::port() const { return parts_->server->port(); }
int Generator::health_port() const { return parts_->server->health_port(); }

}  // namespace retro
