// A cluster of processes under load while each of them is killed, stopped or wiped in turn.
//
// RETRO_CLUSTER_SEED changes what is written and when.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "common/document/half.h"
#include "retriever_service/embed/hash_embedder.h"
#include "tests/cluster_documents.h"
#include "tests/cluster_processes.h"

namespace retro {
namespace {

namespace pb = retriever::v1;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint32_t kSeedDefault = 4711;

uint32_t Seed() {
  const char* text = std::getenv("RETRO_CLUSTER_SEED");
  const uint32_t seed = text == nullptr ? kSeedDefault : static_cast<uint32_t>(std::strtoul(text, nullptr, 10));
  std::printf("seed %u\n", seed);
  return seed;
}

// ---------------------------------------------------------------- searches

constexpr int kDocuments = 300;
constexpr uint32_t kNearest = 10;
constexpr int kSearchers = 4;
constexpr milliseconds kSearchEvery{40};  // of each searcher: 100 a second

// What exact search must find, computed without any of the code under test but the embedder.
class Oracle {
 public:
  std::vector<std::string> Nearest(const std::string& text) {
    if (vectors_.empty()) {
      for (int i = 0; i < kDocuments; ++i) vectors_.push_back(VectorOf(TextOf(i), /*as_stored=*/true));
    }
    const std::vector<float> query = VectorOf(text, /*as_stored=*/false);
    std::vector<std::pair<float, std::string>> all;
    for (int i = 0; i < kDocuments; ++i) {
      float distance = 0;
      for (size_t d = 0; d < query.size(); ++d) distance += (query[d] - vectors_[i][d]) * (query[d] - vectors_[i][d]);
      all.emplace_back(distance, StrCat("d", i));
    }
    std::partial_sort(all.begin(), all.begin() + kNearest, all.end());
    std::vector<std::string> ids;
    for (uint32_t i = 0; i < kNearest; ++i) ids.push_back(all[i].second);
    std::sort(ids.begin(), ids.end());
    return ids;
  }

 private:
  std::vector<float> VectorOf(const std::string& text, bool as_stored) {
    const std::vector<TokenSequence> sequences = {embedder_.Encode(text, TextKind::kPassage)};
    const auto vectors = embedder_.Embed(sequences);
    EXPECT_TRUE(vectors.ok());
    std::vector<float> vector(vectors->begin(), vectors->begin() + kClusterDimension);
    if (as_stored) FromHalf(ToHalf(vector), vector);
    return vector;
  }

  HashEmbedder embedder_{kClusterDimension};
  std::vector<std::vector<float>> vectors_;
};

struct SearchLoad {
  std::atomic<bool> stop = false;
  std::atomic<int> searches = 0;
  std::atomic<int> failed = 0;
  Mutex mutex;
  std::vector<double> ms ABSL_GUARDED_BY(mutex);
};

// At a fixed rate, however long the answers take: what had to wait for an earlier one is late itself.
void SearchUntilStopped(pb::RetrieverService::Stub& stub, const std::vector<std::vector<std::string>>& expected,
                        uint32_t seed, SearchLoad& load) {
  std::mt19937 random(seed);
  for (auto due = Clock::now(); !load.stop; due += kSearchEvery) {
    std::this_thread::sleep_until(due);
    const int number = static_cast<int>(random() % expected.size());
    pb::SearchRequest request;
    request.add_queries()->set_text(TextOf(number));
    request.set_k(kNearest);
    request.mutable_effort()->set_exact(true);
    grpc::ClientContext context;
    SetDeadline(context, milliseconds(30'000));
    pb::SearchResponse response;
    const grpc::Status status = stub.Search(&context, request, &response);
    ++load.searches;
    std::vector<std::string> found;
    if (status.ok()) {
      for (const pb::Neighbour& neighbour : response.results(0).neighbours()) found.push_back(neighbour.document_id());
    }
    std::sort(found.begin(), found.end());
    const bool right = status.ok() && response.coverage().shards_answered() == 2 && found == expected[number];
    if (!right && load.failed++ < 5) {
      ADD_FAILURE() << TextOf(number) << ": " << status.error_message() << ", coverage "
                    << response.coverage().shards_answered() << ", " << found.size() << " found";
    }
    const MutexLock lock(load.mutex);
    load.ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - due).count());
  }
}

void PrintTimes(const char* when, SearchLoad& load) {
  const MutexLock lock(load.mutex);
  std::sort(load.ms.begin(), load.ms.end());
  if (load.ms.empty()) return;
  std::printf("%-24s %5zu searches, p50 %6.1f ms, p99 %6.1f ms\n", when, load.ms.size(), load.ms[load.ms.size() / 2],
              load.ms[load.ms.size() * 99 / 100]);
  load.ms.clear();
}

// Searchers of a cluster that is filled with the documents, until they are stopped.
class Searchers {
 public:
  Searchers(const ClusterProcesses& cluster, uint32_t seed) : stub_(cluster.Retriever(0)) {
    for (int i = 0; i < kDocuments; i += 100) EXPECT_EQ(WriteSurely(*stub_, i, i + 100), absl::OkStatus());
    Oracle oracle;
    for (int i = 0; i < kDocuments; ++i) expected_.push_back(oracle.Nearest(TextOf(i)));
    for (int i = 0; i < kSearchers; ++i) {
      threads_.emplace_back([this, seed, i] { SearchUntilStopped(*stub_, expected_, seed + i, load); });
    }
  }
  ~Searchers() { Stop(); }
  void Stop() {
    load.stop = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  SearchLoad load;

 private:
  const std::unique_ptr<pb::RetrieverService::Stub> stub_;
  std::vector<std::vector<std::string>> expected_;
  std::vector<std::thread> threads_;
};

grpc::Status Promote(const ClusterProcesses& cluster, int shard, const std::string& replica) {
  grpc::ClientContext context;
  admin::v1::PromoteRequest request;
  request.set_shard(shard);
  request.set_replica(replica);
  admin::v1::PromoteResponse response;
  return cluster.Admin(0)->Promote(&context, request, &response);
}

// In which a router connects to a replica that is back, with much to spare: it asks five times a second.
constexpr milliseconds kNoticed{2000};

TEST(ClusterKillTest, SearchesNoticeNothing) {
  const uint32_t seed = Seed();
  ClusterProcesses cluster(/*shards=*/2, /*replicas=*/2, /*routers=*/1);
  Searchers searchers(cluster, seed);
  SearchLoad& load = searchers.load;
  std::this_thread::sleep_for(milliseconds(4000));
  PrintTimes("quiet", load);
  for (const std::string& name : cluster.names()) {
    if (name[0] == 'r') continue;  // whoever asks it sees that it is gone
    cluster.Signal(name, SIGSTOP);
    std::this_thread::sleep_for(milliseconds(1500));
    cluster.Signal(name, SIGCONT);
    cluster.WaitUntilAllInSync();
    PrintTimes((name + " stopped").c_str(), load);
    cluster.Kill(name);
    std::this_thread::sleep_for(milliseconds(1000));
    cluster.Start(name);
    cluster.WaitUntilAllInSync();
    std::this_thread::sleep_for(kNoticed);
    PrintTimes((name + " killed").c_str(), load);
  }
  searchers.Stop();
  std::printf("%d searches, %d failed or wrong\n", load.searches.load(), load.failed.load());
  EXPECT_EQ(load.failed, 0);
  EXPECT_GT(load.searches, 200);
}

// Whoever waits as long as a minute, for a router that works on 16 calls at once.
grpc::Status SearchPatiently(pb::RetrieverService::Stub& stub, bool allow_partial, pb::SearchResponse& response) {
  pb::SearchRequest request;
  request.add_queries()->set_text(TextOf(1));
  request.set_allow_partial(allow_partial);
  grpc::ClientContext context;
  SetDeadline(context, milliseconds(60'000));
  return stub.Search(&context, request, &response);
}

grpc::Status ReadPatiently(pb::RetrieverService::Stub& stub, const std::string& id) {
  pb::GetDocumentRequest request;
  request.set_document_id(id);
  grpc::ClientContext context;
  SetDeadline(context, milliseconds(60'000));
  pb::GetDocumentResponse response;
  return stub.GetDocument(&context, request, &response);
}

bool IsOfShard1(int document) { return SlotOfDocument(StrCat("d", document)) >= kSlotCount / 2; }

// While shard 1 of two does not answer.
void CheckCalls(pb::RetrieverService::Stub& stub, int document) {
  pb::SearchResponse response;
  const grpc::Status part = SearchPatiently(stub, /*allow_partial=*/true, response);
  EXPECT_TRUE(part.ok()) << part.error_message();
  EXPECT_EQ(response.coverage().shards_answered(), 1u);
  EXPECT_EQ(response.coverage().shards_asked(), 2u);
  const grpc::Status whole = SearchPatiently(stub, /*allow_partial=*/false, response);
  EXPECT_EQ(whole.error_code(), grpc::StatusCode::UNAVAILABLE) << whole.error_message();
  EXPECT_NE(whole.error_message().find("shard 1"), std::string::npos) << whole.error_message();
  EXPECT_EQ(ReadPatiently(stub, StrCat("d", document)).ok(), !IsOfShard1(document));
}

TEST(ClusterKillTest, AShardThatHangsHoldsUpNoOther) {
  constexpr int kCallers = 60;
  constexpr std::chrono::seconds kTimeMax{30};
  ClusterProcesses cluster(/*shards=*/2, /*replicas=*/2, /*routers=*/1);
  const auto stub = cluster.Retriever(0);
  for (int i = 0; i < kDocuments; i += 100) ASSERT_EQ(WriteSurely(*stub, i, i + 100), absl::OkStatus());
  for (const char* name : {"s1r0", "s1r1"}) cluster.Signal(name, SIGSTOP);
  auto begin = Clock::now();
  std::vector<std::thread> callers;
  callers.reserve(kCallers);
  for (int i = 0; i < kCallers; ++i) callers.emplace_back([&, i] { CheckCalls(*stub, i); });  // no router knows yet
  for (std::thread& caller : callers) caller.join();
  EXPECT_LT(Clock::now() - begin, kTimeMax) << "callers hold the router for as long as they would wait";
  begin = Clock::now();
  for (int i = 0; i < kCallers; ++i) CheckCalls(*stub, i);
  EXPECT_LT(Clock::now() - begin, kTimeMax) << "each of them waits for the shard";
  for (const char* name : {"s1r0", "s1r1"}) cluster.Signal(name, SIGCONT);
  begin = Clock::now();
  for (pb::SearchResponse response; response.coverage().shards_answered() < 2;) {
    ASSERT_LT(Clock::now() - begin, kTimeMax) << "it is not found again";
    SearchPatiently(*stub, /*allow_partial=*/true, response);
  }
}

// Writers of other titles, so that what searches find stays as it is, until they go out of scope.
class TitleWriters {
 public:
  explicit TitleWriters(const ClusterProcesses& cluster) : stub_(cluster.Retriever(0)) {
    for (int writer = 0; writer < kWriters; ++writer) {
      threads_.emplace_back([this, writer] {
        for (int n = 0; !stop_; ++n) {
          const int document = (n * kWriters + writer) % kDocuments;
          if (WriteDocuments(*stub_, document, document + 1, StrCat("title ", n)).ok()) ++acknowledged_;
        }
      });
    }
  }
  ~TitleWriters() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  void GoOn() const {
    constexpr int kMore = 100;
    for (const int enough = acknowledged_ + kMore; acknowledged_ < enough;) {
      std::this_thread::sleep_for(milliseconds(10));
    }
  }

 private:
  static constexpr int kWriters = 4;
  const std::unique_ptr<pb::RetrieverService::Stub> stub_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> acknowledged_ = 0;
  std::vector<std::thread> threads_;
};

TEST(ClusterKillTest, AnOrderlyStopOfAPrimaryUnderWritesCostsNothing) {
  // No replica is dropped because this machine was busy: it is about one that is there.
  ClusterProcesses cluster(/*shards=*/2, /*replicas=*/2, /*routers=*/1, /*late=*/std::chrono::seconds(30));
  Searchers searchers(cluster, Seed());
  const TitleWriters writers(cluster);
  for (int round = 0; round < 4; ++round) {
    writers.GoOn();
    const std::string leaving = StrCat("s0r", round % 2), other = StrCat("s0r", 1 - round % 2);
    ASSERT_TRUE(cluster.IsPrimary(leaving));
    EXPECT_EQ(cluster.Stop(leaving), 0);
    EXPECT_TRUE(cluster.InSync(leaving) && cluster.InSync(other)) << "both have all that was acknowledged";
    const grpc::Status promoted = Promote(cluster, 0, other);
    ASSERT_TRUE(promoted.ok()) << promoted.error_message();
    writers.GoOn();
    cluster.Start(leaving);
    cluster.WaitUntilAllInSync();
    std::this_thread::sleep_for(kNoticed);
  }
  searchers.Stop();
  EXPECT_EQ(searchers.load.failed, 0);
}

// ---------------------------------------------------------------- writes

constexpr int kIds = 1000;
constexpr int kWritersARouter = 2;

// One write of one id, as its client saw it. An outcome that is unknown may come true at any time.
struct Operation {
  Clock::time_point begin;
  Clock::time_point end = Clock::time_point::max();
  bool acknowledged = false;
  bool deletes = false;
  std::string text;
};

// Everything that was tried, by id; what each read may return follows from it.
class History {
 public:
  size_t Begin(int id, bool deletes, std::string text) {
    const MutexLock lock(mutex_);
    operations_[id].push_back({Clock::now(), Clock::time_point::max(), false, deletes, std::move(text)});
    return operations_[id].size() - 1;
  }
  void Acknowledge(int id, size_t number) {
    const MutexLock lock(mutex_);
    Operation& operation = operations_[id][number];
    operation.end = Clock::now();
    operation.acknowledged = true;
    ++acknowledged_;
  }

  // "" if an id may have this text (nothing: no document) for a reader who has seen what was acknowledged before
  // `seen`, and the operation `own`; else why not.
  std::string Explain(int id, const std::optional<std::string>& text, Clock::time_point seen,
                      std::optional<size_t> own = std::nullopt) {
    const MutexLock lock(mutex_);
    const auto& all = operations_[id];
    Clock::time_point newest_begin = Clock::time_point::min();  // of those acknowledged by then
    for (const Operation& operation : all) {
      if (operation.acknowledged && operation.end <= seen) newest_begin = std::max(newest_begin, operation.begin);
    }
    if (own.has_value()) newest_begin = std::max(newest_begin, all[*own].begin);
    if (!text.has_value() && newest_begin == Clock::time_point::min()) return "";  // it may not be there yet
    for (const Operation& operation : all) {
      const bool makes_it = text.has_value() ? !operation.deletes && operation.text == *text : operation.deletes;
      if (makes_it && operation.end >= newest_begin) return "";
    }
    return StrCat("id ", id, text.has_value() ? " has \"" + *text + "\"" : " is not there",
                  ", though something else was acknowledged after that");
  }

  int acknowledged() {
    const MutexLock lock(mutex_);
    return acknowledged_;
  }

 private:
  Mutex mutex_;
  std::map<int, std::vector<Operation>> operations_ ABSL_GUARDED_BY(mutex_);
  int acknowledged_ ABSL_GUARDED_BY(mutex_) = 0;
};

std::optional<std::string> ReadText(pb::RetrieverService::Stub& stub, int id, const std::string& token,
                                    grpc::Status& status) {
  grpc::ClientContext context;
  SetDeadline(context, milliseconds(5000));
  pb::GetDocumentRequest request;
  request.set_document_id(StrCat("id", id));
  request.set_consistency_token(token);
  pb::GetDocumentResponse response;
  status = stub.GetDocument(&context, request, &response);
  if (status.ok()) return response.document().text();
  return std::nullopt;
}

struct WriteLoad {
  std::atomic<bool> stop = false;
  std::atomic<int> reads = 0;
  std::atomic<int> unknown = 0;
  History history;
};

// True if it was acknowledged; `token` is what came with that.
bool Upsert(pb::RetrieverService::Stub& stub, int id, const std::string& text, std::string& token) {
  pb::UpsertDocumentsRequest request;
  request.add_writes()->mutable_document()->set_id(StrCat("id", id));
  request.mutable_writes(0)->mutable_document()->set_text(text);
  grpc::ClientContext context;
  SetDeadline(context, milliseconds(5000));
  pb::UpsertDocumentsResponse response;
  const grpc::Status status = stub.UpsertDocuments(&context, request, &response);
  token = response.consistency_token();
  return status.ok() && response.results_size() == 1 && !response.results(0).has_error();
}

bool Delete(pb::RetrieverService::Stub& stub, int id, std::string& token) {
  pb::DeleteDocumentsRequest request;
  request.add_document_ids(StrCat("id", id));
  grpc::ClientContext context;
  SetDeadline(context, milliseconds(5000));
  pb::DeleteDocumentsResponse response;
  const grpc::Status status = stub.DeleteDocuments(&context, request, &response);
  token = response.consistency_token();
  return status.ok();
}

// Writes through one router and, with the token of each acknowledgement, reads through the other.
void WriteUntilStopped(const ClusterProcesses& cluster, int writer, uint32_t seed, WriteLoad& load) {
  std::mt19937 random(seed + writer);
  const auto stub = cluster.Retriever(writer % 2);
  const auto other = cluster.Retriever(1 - writer % 2);
  for (int n = 0; !load.stop; ++n) {
    const int id = static_cast<int>(random() % kIds);
    const bool deletes = random() % 5 == 0;
    const std::string text = StrCat("text ", n, " of writer ", writer, " for ", id);
    const auto begin = Clock::now();  // the token covers what was acknowledged to anybody before
    const size_t operation = load.history.Begin(id, deletes, text);
    std::string token;
    if (!(deletes ? Delete(*stub, id, token) : Upsert(*stub, id, text, token))) {
      ++load.unknown;
      std::this_thread::sleep_for(milliseconds(20));
      continue;
    }
    load.history.Acknowledge(id, operation);
    grpc::Status status;
    const auto read = ReadText(*other, id, token, status);
    if (!status.ok() && status.error_code() != grpc::StatusCode::NOT_FOUND) continue;  // gone for now
    ++load.reads;
    const std::string wrong = load.history.Explain(id, read, begin, operation);
    if (!wrong.empty()) ADD_FAILURE() << "a stale read with a token: " << wrong;
  }
}

// Segments of all shards' indexes but the growing ones.
int SealedSegments(pb::RetrieverService::Stub& stub) {
  grpc::ClientContext context;
  pb::StatsResponse response;
  EXPECT_TRUE(stub.Stats(&context, {}, &response).ok());
  int sealed = 0;
  for (const pb::ShardStats& shard : response.shards()) sealed += shard.collections(0).segments_size() - 1;
  return sealed;
}

void CheckEnd(ClusterProcesses& cluster, WriteLoad& load) {
  cluster.ExpectReplicasAlike();
  const auto stub = cluster.Retriever(0);
  EXPECT_GT(SealedSegments(*stub), 0) << "replicas had no index to restart with or to copy";
  for (int id = 0; id < kIds; ++id) {
    grpc::Status status;
    const auto read = ReadText(*stub, id, "", status);
    ASSERT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND) << status.error_message();
    const std::string wrong = load.history.Explain(id, read, Clock::now());
    EXPECT_EQ(wrong, "") << "an acknowledged write is lost";
  }
}

TEST(ClusterKillTest, TwoRoutersWriteTheSameIdsAndNothingIsLost) {
  const uint32_t seed = Seed();
  ClusterProcesses cluster(/*shards=*/2, /*replicas=*/2, /*routers=*/2);
  WriteLoad load;
  std::vector<std::thread> writers;
  writers.reserve(2 * kWritersARouter);
  for (int w = 0; w < 2 * kWritersARouter; ++w) {
    writers.emplace_back([&, w] { WriteUntilStopped(cluster, w, seed, load); });
  }
  std::mt19937 random(seed);
  int promotions = 0;
  for (int round = 0; round < 2; ++round) {
    for (const std::string& name : cluster.names()) {
      std::this_thread::sleep_for(milliseconds(300 + random() % 700));
      const bool was_primary = cluster.IsPrimary(name);
      cluster.Kill(name);
      std::this_thread::sleep_for(milliseconds(200 + random() % 1500));
      if (was_primary && round == 0) {  // once another takes over, once it comes back itself
        const int shard = name[1] - '0';
        const grpc::Status status = Promote(cluster, shard, StrCat("s", shard, "r", name[3] == '0' ? 1 : 0));
        ASSERT_TRUE(status.ok()) << status.error_message();
        ++promotions;
      }
      if (round == 1 && name[3] == '1') cluster.Wipe(name);
      cluster.Start(name);
      cluster.WaitUntilAllInSync();
    }
  }
  const auto until = Clock::now() + std::chrono::minutes(1);  // for a slow disk
  while ((load.history.acknowledged() <= 1000 || load.reads <= 500) && Clock::now() < until) {
    std::this_thread::sleep_for(milliseconds(100));
  }
  load.stop = true;
  for (std::thread& writer : writers) writer.join();
  cluster.WaitUntilAllInSync();
  std::printf("%d writes acknowledged, %d not, %d reads with a token, %d promotions\n", load.history.acknowledged(),
              load.unknown.load(), load.reads.load(), promotions);
  EXPECT_GT(load.history.acknowledged(), 1000);
  EXPECT_GT(load.reads, 500);
  EXPECT_GE(promotions, 2);
  CheckEnd(cluster, load);
}

}  // namespace
}  // namespace retro
