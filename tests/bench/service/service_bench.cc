// See ../service.sh.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/heap.h"
#include "common/base/sync.h"
#include "common/rpc/message.h"
#include "common/rpc/server.h"
#include "common/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"
#include "retriever_service/embed/batcher.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/ingest/collection_spec.h"
#include "retriever_service/query/router.h"
#include "retriever_service/serve/retriever_service.h"
#include "retriever_service/shard/local_shard.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/bench/bench.h"
#include "tests/bench/store/bench_store.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kInFlight = 32;
constexpr int kRounds = 3;  // of each kind of call, by turns
constexpr std::chrono::seconds kRound{3};
constexpr int kAlone = 2000;  // calls, one after the other
constexpr double kProcessorTimesMax = 2;
constexpr double kOverheadUsMax = 300;
constexpr float kEffort = 0.5;
constexpr char kSearch[] = "/retro.retriever.v1.RetrieverService/Search";
// Methods of the bench's own service.
constexpr char kEcho[] = "/retro.bench.Echo/Echo";
constexpr char kTell[] = "/retro.bench.Echo/Tell";
constexpr char kSearchAndEcho[] = "/retro.bench.Echo/SearchAndEcho";

double ProcessorSeconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Processor seconds so far: of the server's process, and what its shard has spent in searches, by what the shard says
// of their times.
struct Spent {
  double process = 0, index = 0, fetch = 0;
};

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

// ---------------------------------------------------------------- the server's process

// The shard, with a clock of what its searches cost the thread that they run on. Index and store share that as they
// share the time.
class TimedShard final : public Shard {
 public:
  explicit TimedShard(std::unique_ptr<Shard> shard) : shard_(std::move(shard)) {}

  absl::StatusOr<shardpb::SearchResponse> Search(const shardpb::SearchRequest& request,
                                                 const CallContext& context) override {
    const double start = ProcessorSeconds(CLOCK_THREAD_CPUTIME_ID);
    auto answer = shard_->Search(request, context);
    if (!answer.ok()) return answer;
    const double seconds = ProcessorSeconds(CLOCK_THREAD_CPUTIME_ID) - start;
    const auto index = static_cast<double>(answer->search_time().nanos());
    const double share = index / (index + static_cast<double>(answer->fetch_time().nanos()));
    const MutexLock lock(mutex_);
    index_ += seconds * share;
    fetch_ += seconds * (1 - share);
    return answer;
  }
  Spent spent() const {
    const MutexLock lock(mutex_);
    return {ProcessorSeconds(CLOCK_PROCESS_CPUTIME_ID), index_, fetch_};
  }

  absl::StatusOr<shardpb::WriteResponse> Write(const shardpb::WriteRequest& request, const CallContext& c) override {
    return shard_->Write(request, c);
  }
  absl::StatusOr<shardpb::DeleteResponse> Delete(const shardpb::DeleteRequest& request, const CallContext& c) override {
    return shard_->Delete(request, c);
  }
  absl::StatusOr<shardpb::CreateCollectionResponse> CreateCollection(const shardpb::CreateCollectionRequest& request,
                                                                     const CallContext& c) override {
    return shard_->CreateCollection(request, c);
  }
  absl::StatusOr<shardpb::DropCollectionResponse> DropCollection(const shardpb::DropCollectionRequest& request,
                                                                 const CallContext& c) override {
    return shard_->DropCollection(request, c);
  }
  absl::StatusOr<shardpb::GetDocumentResponse> GetDocument(const shardpb::GetDocumentRequest& request,
                                                           const CallContext& c) override {
    return shard_->GetDocument(request, c);
  }
  absl::StatusOr<shardpb::GetChunksResponse> GetChunks(const shardpb::GetChunksRequest& request,
                                                       const CallContext& c) override {
    return shard_->GetChunks(request, c);
  }
  absl::StatusOr<shardpb::ListDocumentsResponse> ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                               const CallContext& c) override {
    return shard_->ListDocuments(request, c);
  }
  absl::StatusOr<shardpb::StatsResponse> Stats(const shardpb::StatsRequest& request, const CallContext& c) override {
    return shard_->Stats(request, c);
  }
  absl::StatusOr<shardpb::GetShardInfoResponse> GetShardInfo(const shardpb::GetShardInfoRequest& request,
                                                             const CallContext& c) override {
    return shard_->GetShardInfo(request, c);
  }

 private:
  const std::unique_ptr<Shard> shard_;
  mutable Mutex mutex_;
  double index_ ABSL_GUARDED_BY(mutex_) = 0;
  double fetch_ ABSL_GUARDED_BY(mutex_) = 0;
};

// The plainest RPCs that there are: bytes in, bytes out, on gRPC's own thread.
class EchoService final : public grpc::Service {
 public:
  EchoService(TimedShard& shard, std::vector<shardpb::SearchRequest> searches) : searches_(std::move(searches)) {
    Add(0, kEcho, Echo);
    Add(1, kTell, [&shard](const std::string&) {
      const Spent spent = shard.spent();
      return std::string(reinterpret_cast<const char*>(&spent), sizeof spent);
    });
    // What an echo costs where it alternates with index and store, as the service's calls do, in place of going from
    // echo to echo: caches are others', and of what arrives less is taken in at once.
    Add(2, kSearchAndEcho, [this, &shard](const std::string& request) {
      OrDie(shard.Search(searches_[next_++ % searches_.size()], {}).status());
      return Echo(request);
    });
  }

 private:
  // As many bytes as the request's first four say, of which the request's own are the first.
  static std::string Echo(const std::string& request) {
    uint32_t bytes = 0;
    std::memcpy(&bytes, request.data(), sizeof bytes);
    std::string reply = request;
    reply.resize(bytes);
    return reply;
  }
  void Add(int number, const char* method, std::function<std::string(const std::string&)> answer) {
    AddMethod(new grpc::internal::RpcServiceMethod(method, grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
    MarkMethodRawCallback(
        number, new grpc::internal::CallbackUnaryHandler<grpc::ByteBuffer, grpc::ByteBuffer>(
                    [answer = std::move(answer)](grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* reply) {
                      grpc::Slice bytes;
                      request->DumpToSingleSlice(&bytes);
                      *reply = ToBuffer(answer({reinterpret_cast<const char*>(bytes.begin()), bytes.size()}));
                      auto* reactor = context->DefaultReactor();
                      reactor->Finish(grpc::Status::OK);
                      return reactor;
                    }));
  }

  const std::vector<shardpb::SearchRequest> searches_;
  std::atomic<uint64_t> next_ = 0;
};

// What a router asks its shard for the requests of MakeSearches.
std::vector<shardpb::SearchRequest> MakeShardSearches(const BenchVectors& vectors) {
  std::vector<shardpb::SearchRequest> searches(vectors.queries());
  for (uint32_t i = 0; i < vectors.queries(); ++i) {
    const auto query = vectors.Query(i);
    searches[i].add_queries()->mutable_vector()->mutable_values()->Assign(query.begin(), query.end());
    searches[i].set_k(kBenchK);
    searches[i].mutable_effort()->set_level(kEffort);
  }
  return searches;
}

// Retriever of an own process but that its shard is timed and the echo is beside it. Writes its port, serves for ever.
[[noreturn]] void Serve(const std::string& vectors_folder, const std::string& store, const std::string& tokenizer_file,
                        int port_to) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // not longer than the client
  BoundHeaps();                      // as the program does
  const auto tokenizer = ValueOrDie(LoadChunkingTokenizer(tokenizer_file));
  LocalShardOptions options;
  options.store.path = store;
  auto timed = std::make_unique<TimedShard>(ValueOrDie(LocalShard::Open(options)));
  EchoService echo(*timed, MakeShardSearches(BenchVectors(vectors_folder)));
  std::vector<std::unique_ptr<Shard>> shards;
  shards.push_back(std::move(timed));
  const auto map = ValueOrDie(ShardMap::Create(std::move(shards)));
  EmbedBatcher batcher(std::make_unique<HashEmbedder>(kBenchDimension));
  Embedding embedding(batcher);
  Router router(*map, embedding, /*waiting_reads_max=*/4);
  IngestBudget budget(1, 1);
  DocumentWriter writer(*map, embedding, *tokenizer, budget);
  Collections collections(*map, pb::CollectionSpec());
  WorkerPool workers(16, 1024), ingest_workers(1, 1);
  Metrics metrics;
  RetrieverMetrics retriever_metrics(metrics);
  UnaryRunner runner(workers, metrics, {});
  OpenStreams streams;
  const auto service =
      MakeRetrieverService({*map, router, writer, collections, embedding, *tokenizer, runner, runner, runner,
                            ingest_workers, budget, streams, metrics, retriever_metrics, uint64_t{64} << 20, true});
  const auto server = ValueOrDie(RpcServer::Start({}, {service.get(), &echo}));
  const int port = server->port();
  if (write(port_to, &port, sizeof port) != sizeof port) std::exit(1);
  while (true) pause();
}

// ---------------------------------------------------------------- the client's

class Client {
 public:
  explicit Client(int port)
      : Client(grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials())) {}

  // As a program in C++ calls it.
  pb::SearchResponse Search(const pb::SearchRequest& request) {
    grpc::ClientContext context;
    pb::SearchResponse response;
    const grpc::Status status = searches_->Search(&context, request, &response);
    if (!status.ok()) OrDie(absl::InternalError(status.error_message()));
    return response;
  }

  // Returns with the answer.
  grpc::ByteBuffer Call(const char* method, const grpc::ByteBuffer& request) {
    grpc::ClientContext context;
    grpc::ByteBuffer reply;
    Mutex mutex;
    CondVar changed;
    std::optional<grpc::Status> status;
    stub_.UnaryCall(&context, method, grpc::StubOptions(), &request, &reply, [&](const grpc::Status& outcome) {
      const MutexLock lock(mutex);
      status = outcome;
      changed.NotifyOne();
    });
    const MutexLock lock(mutex);
    while (!status.has_value()) changed.Wait(mutex);
    if (!status->ok()) OrDie(absl::InternalError(status->error_message()));
    return reply;
  }

  // Of the server, so far.
  Spent Tell() {
    Spent spent;
    const std::string told = Bytes(Call(kTell, ToBuffer("")));
    std::memcpy(&spent, told.data(), sizeof spent);
    return spent;
  }

  static std::string Bytes(const grpc::ByteBuffer& buffer) {
    grpc::Slice slice;
    buffer.DumpToSingleSlice(&slice);
    return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
  }

 private:
  explicit Client(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(channel), searches_(pb::RetrieverService::NewStub(channel)) {}

  grpc::GenericStub stub_;
  const std::unique_ptr<pb::RetrieverService::Stub> searches_;
};

// What a call costs the server's processor, in microseconds, with kInFlight of them at once.
struct Cost {
  double outside_us = 0;  // of index and store
  double index_us = 0, fetch_us = 0, reply_bytes = 0;
};

Cost Measure(Client& client, const char* method, const std::vector<grpc::ByteBuffer>& requests) {
  std::atomic<uint64_t> calls = 0, bytes = 0;
  const Spent before = client.Tell();
  const auto start = Clock::now();
  std::vector<std::thread> callers;
  for (int i = 0; i < kInFlight; ++i) {
    callers.emplace_back([&] {
      while (Clock::now() - start < kRound) bytes += client.Call(method, requests[calls++ % requests.size()]).Length();
    });
  }
  for (std::thread& caller : callers) caller.join();
  const Spent after = client.Tell();
  const double each_us = 1e6 / static_cast<double>(calls);
  Cost cost = {0, (after.index - before.index) * each_us, (after.fetch - before.fetch) * each_us,
               static_cast<double>(bytes) / static_cast<double>(calls)};
  cost.outside_us = (after.process - before.process) * each_us - cost.index_us - cost.fetch_us;
  return cost;
}

nlohmann::ordered_json Row(const char* row, double ours, double peer, const char* peer_name, double times_max) {
  return {{"bench", "service"},
          {"row", row},
          {"unit", "us"},
          {"ours", ours},
          {"peer", peer},
          {"peer_name", peer_name},
          {"ratio", times_max * peer / ours},
          {"pass", ours <= times_max * peer},
          {"valid", true}};
}

nlohmann::ordered_json MeasureProcessor(Client& client, const std::vector<pb::SearchRequest>& requests) {
  std::vector<grpc::ByteBuffer> searches(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) SerializeMessage(requests[i], searches[i]);
  const double reply_bytes = Measure(client, kSearch, searches).reply_bytes;
  std::string bytes(searches[0].Length(), 'x');
  const auto size = static_cast<uint32_t>(reply_bytes);
  std::memcpy(bytes.data(), &size, sizeof size);
  std::vector<double> ours, peers, index, fetch, alternating;
  for (int round = 0; round < kRounds; ++round) {
    peers.push_back(Measure(client, kEcho, {ToBuffer(bytes)}).outside_us);
    alternating.push_back(Measure(client, kSearchAndEcho, {ToBuffer(bytes)}).outside_us);
    const Cost cost = Measure(client, kSearch, searches);
    ours.push_back(cost.outside_us);
    index.push_back(cost.index_us);
    fetch.push_back(cost.fetch_us);
  }
  auto row = Row("processor time of a Search less that of index and fetching, 32 in flight", Percentile(ours, 0.5),
                 Percentile(peers, 0.5), "an echo of the same bytes", kProcessorTimesMax);
  row["echo_after_search_us"] = Percentile(alternating, 0.5);
  row["index_us"] = Percentile(index, 0.5);
  row["fetch_us"] = Percentile(fetch, 0.5);
  row["request_bytes"] = bytes.size();
  row["reply_bytes"] = reply_bytes;
  return row;
}

double MicrosecondsOf(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) * 1e6 + static_cast<double>(duration.nanos()) / 1e3;
}

nlohmann::ordered_json MeasureAlone(Client& client, const std::vector<pb::SearchRequest>& requests) {
  std::vector<double> overhead_us, total_us, echo_us;
  for (int i = 0; i < kAlone; ++i) {
    auto start = Clock::now();
    const pb::SearchResponse response = client.Search(requests[i % requests.size()]);
    total_us.push_back(SecondsSince(start) * 1e6);
    overhead_us.push_back(total_us.back() - MicrosecondsOf(response.times().search()) -
                          MicrosecondsOf(response.times().fetch()));
    start = Clock::now();
    client.Tell();
    echo_us.push_back(SecondsSince(start) * 1e6);
  }
  auto row = Row("time of a call alone less that in index and store, median", Percentile(overhead_us, 0.5),
                 kOverheadUsMax, "the promise", 1);
  row["p99_us"] = Percentile(overhead_us, 0.99);
  row["call_us"] = Percentile(total_us, 0.5);
  row["empty_call_us"] = Percentile(echo_us, 0.5);
  return row;
}

std::vector<pb::SearchRequest> MakeSearches(const BenchVectors& vectors, const std::string& fingerprint) {
  std::vector<pb::SearchRequest> searches;
  for (uint32_t i = 0; i < vectors.queries(); ++i) searches.push_back(MakeSearch(vectors, i, fingerprint, kEffort));
  return searches;
}

int Main(const std::string& vectors_folder, const std::string& store, const std::string& tokenizer) {
  std::array<int, 2> pipe_ends{};
  if (pipe(pipe_ends.data()) != 0) return 1;
  const pid_t server = fork();  // before gRPC has threads
  if (server == 0) Serve(vectors_folder, store, tokenizer, pipe_ends[1]);
  int port = 0;
  close(pipe_ends[1]);
  if (read(pipe_ends[0], &port, sizeof port) != sizeof port) return 1;
  const BenchVectors vectors(vectors_folder);
  Client client(port);
  pb::GetInfoResponse info;
  ParseMessage(client.Call("/retro.retriever.v1.RetrieverService/GetInfo", ToBuffer("")), info);
  const auto searches = MakeSearches(vectors, info.collections(0).embedder_fingerprint());
  bool pass = true;
  for (const auto measure : {MeasureAlone, MeasureProcessor}) {
    const auto row = measure(client, searches);
    std::cout << row.dump() << std::endl;
    pass = pass && row["pass"];
  }
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  return pass ? 0 : 1;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: service_bench VECTORS STORE TOKENIZER\n");
    return 2;
  }
  return retro::Main(argv[1], argv[2], argv[3]);
}
