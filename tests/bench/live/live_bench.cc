// See ../live.sh.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/strings.h"
#include "common/base/sync.h"
#include "common/document/half.h"
#include "nlohmann/json.hpp"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/bench/bench.h"
#include "tests/bench/store/bench_store.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kChangesASecond = 200, kTextChangesASecond = 10;
constexpr uint64_t kLag = 200;  // inserts until such a document is deleted
constexpr uint64_t kTextLag = 10;
constexpr uint64_t kWatchEvery = 10;  // inserts, of which one is looked for, and deleted again
constexpr int kCallers = 16;
constexpr double kP99TimesMax = 2, kVisibleSecondsMax = 1, kRateShareMin = 0.98;
constexpr std::chrono::seconds kGiveUp{10};

// Does `work(i)` at second i / rate of `seconds`, on several threads; returns how often. What comes late is late for
// all.
uint64_t Paced(double rate, double seconds, const std::function<void(uint64_t i, Clock::time_point due)>& work) {
  const auto start = Clock::now();
  std::atomic<uint64_t> next = 0, done = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&] {
      while (true) {
        const uint64_t i = next++;
        const std::chrono::duration<double> at(static_cast<double>(i) / rate);
        if (at.count() >= seconds) return;
        const Clock::time_point due = start + std::chrono::duration_cast<Clock::duration>(at);
        std::this_thread::sleep_until(due);
        if (SecondsSince(start) < seconds) ++done;
        work(i, due);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  return done;
}

class Seconds {
 public:
  void Add(double seconds) {
    const MutexLock lock(mutex_);
    all_.push_back(seconds);
  }
  double At(double share) {
    const MutexLock lock(mutex_);
    return Percentile(all_, share);
  }

 private:
  Mutex mutex_;
  std::vector<double> all_ ABSL_GUARDED_BY(mutex_);
};

class Bench {
 public:
  Bench(const std::string& address, const std::string& vectors)
      : vectors_(vectors),
        stub_(pb::RetrieverService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    pb::GetInfoResponse info;
    Check(stub_->GetInfo(&context, {}, &info));
    fingerprint_ = info.embedder_fingerprint();
    text_ = MakeDocument(vectors_, 0).document().text();
    grpc::ClientContext cut_context;
    pb::CutChunksRequest request;
    pb::CutChunksResponse cut;
    request.set_text(text_);
    Check(stub_->CutChunks(&cut_context, request, &cut));
    chunks_ = cut.chunks_size();
    passage_ = cut.chunks(0).text();
  }

  void SearchFor(double rate, double seconds, Seconds& took) {
    Paced(rate, seconds, [&](uint64_t i, Clock::time_point due) {
      Search(MakeSearch(vectors_, static_cast<uint32_t>(i % vectors_.queries()), fingerprint_, kEffort));
      took.Add(SecondsSince(due));
    });
  }

  // By turns an insert of a document with vectors and a deletion: of a watched one, kLag later, or else of one that was
  // there from the beginning. So the store stays as large as it is, and what grows is sealed and merged.
  uint64_t ChangeFor(double seconds) {
    return Paced(kChangesASecond, seconds, [&](uint64_t i, Clock::time_point due) {
      const uint64_t number = i / 2;
      const bool watched = number % kWatchEvery == 0;
      if (i % 2 == 0) {
        Insert(number, due, watched);
      } else if (!watched) {
        Delete(StrCat("d", number));
      } else if (number >= kLag) {
        Delete(StrCat("live", number - kLag));
        if (Finds(number - kLag)) ++wrong_;
      }
    });
  }
  // The same with a chunk of text, which the service embeds.
  uint64_t ChangeTextsFor(double seconds) {
    return Paced(kTextChangesASecond, seconds, [&](uint64_t i, Clock::time_point) {
      const uint64_t number = i / 2;
      if (i % 2 == 1) {
        if (number >= kTextLag) Delete(StrCat("text", number - kTextLag));
        return;
      }
      pb::DocumentWrite write;
      write.mutable_document()->set_id(StrCat("text", number));
      write.mutable_document()->set_text(StrCat(number, " ", passage_));
      Upsert(std::move(write));
    });
  }

  uint64_t failed() const { return failed_; }
  uint64_t wrong() const { return wrong_; }  // deleted and found, or never found
  uint64_t swaps() const { return last_generation_ - first_generation_; }
  Seconds& visible() { return visible_; }
  Seconds& acknowledged() { return acknowledged_; }

 private:
  static constexpr float kEffort = 0.5;

  static void Check(const grpc::Status& status) {
    if (!status.ok()) OrDie(absl::InternalError(status.error_message()));
  }

  pb::SearchResponse Search(const pb::SearchRequest& request) {
    grpc::ClientContext context;
    pb::SearchResponse response;
    if (!stub_->Search(&context, request, &response).ok()) ++failed_;
    uint64_t none = 0;
    first_generation_.compare_exchange_strong(none, response.index_generation());
    last_generation_ = std::max(last_generation_.load(), response.index_generation());
    return response;
  }

  // Between two stored vectors, so that nothing is nearer to it.
  std::vector<float> VectorOf(uint64_t number, int chunk) const {
    const uint64_t row = (number * 7919 + static_cast<uint64_t>(chunk) * 31) % (vectors_.rows() - 1);
    std::vector<float> vector(kBenchDimension), other(kBenchDimension);
    FromHalf(vectors_.Row(row), vector);
    FromHalf(vectors_.Row(row + 1), other);
    for (size_t i = 0; i < vector.size(); ++i) vector[i] = 0.8F * vector[i] + 0.2F * other[i];
    return vector;
  }

  void Upsert(pb::DocumentWrite write) {
    grpc::ClientContext context;
    pb::UpsertDocumentsRequest request;
    pb::UpsertDocumentsResponse response;
    *request.add_writes() = std::move(write);
    const grpc::Status status = stub_->UpsertDocuments(&context, request, &response);
    if (!status.ok() || response.results(0).has_error()) ++failed_;
  }

  void Insert(uint64_t number, Clock::time_point due, bool watched) {
    pb::DocumentWrite write;
    write.mutable_document()->set_id(StrCat("live", number));
    write.mutable_document()->set_text(text_);
    write.set_embedder_fingerprint(fingerprint_);
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      const std::vector<float> vector = VectorOf(number, chunk);
      write.add_chunk_vectors()->mutable_values()->Add(vector.begin(), vector.end());
    }
    Upsert(std::move(write));
    acknowledged_.Add(SecondsSince(due));
    if (!watched) return;
    bool found = Finds(number);
    while (!found && Clock::now() < due + kGiveUp) found = Finds(number);
    visible_.Add(SecondsSince(due));
    if (!found) ++wrong_;
  }

  void Delete(const std::string& id) {
    grpc::ClientContext context;
    pb::DeleteDocumentsRequest request;
    pb::DeleteDocumentsResponse response;
    request.add_document_ids(id);
    if (!stub_->DeleteDocuments(&context, request, &response).ok()) ++failed_;
  }

  bool Finds(uint64_t number) {
    pb::SearchRequest request = MakeSearch(vectors_, 0, fingerprint_, kEffort);
    const std::vector<float> vector = VectorOf(number, 0);
    request.mutable_queries(0)->mutable_vector()->mutable_values()->Assign(vector.begin(), vector.end());
    const pb::SearchResponse response = Search(request);
    if (response.results().empty()) return false;
    return std::ranges::any_of(response.results(0).neighbours(), [&](const pb::Neighbour& neighbour) {
      return neighbour.document_id() == StrCat("live", number);
    });
  }

  const BenchVectors vectors_;
  const std::unique_ptr<pb::RetrieverService::Stub> stub_;
  std::string fingerprint_, text_, passage_;
  int chunks_ = 0;
  std::atomic<uint64_t> failed_ = 0, wrong_ = 0, first_generation_ = 0, last_generation_ = 0;
  Seconds visible_, acknowledged_;
};

int Main(int argc, char** argv) {
  std::string address, vectors;
  double seconds = 120, rate = 50;
  CLI::App app("A retriever whose documents change while it is searched", "live_bench");
  app.add_option("--address", address, "Of the retriever")->required();
  app.add_option("--vectors", vectors, "Folder of what it holds")->required();
  app.add_option("--seconds", seconds, "Without changes, and as long with them")->capture_default_str();
  app.add_option("--rate", rate, "Searches a second")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  Bench bench(address, vectors);
  Seconds warm_up, quiet, live;
  bench.SearchFor(rate, 5, warm_up);
  bench.SearchFor(rate, seconds, quiet);
  uint64_t changes = 0, text_changes = 0;
  std::thread changer([&] { changes = bench.ChangeFor(seconds); });
  std::thread text_changer([&] { text_changes = bench.ChangeTextsFor(seconds); });
  bench.SearchFor(rate, seconds, live);
  changer.join();
  text_changer.join();
  const double share = std::min(static_cast<double>(changes) / (kChangesASecond * seconds),
                                static_cast<double>(text_changes) / (kTextChangesASecond * seconds));
  const bool kept_up = share >= kRateShareMin && bench.failed() == 0 && bench.wrong() == 0;
  const auto row = [&](const std::string& name, double ours, double peer, const std::string& peer_name,
                       double times_max) {
    const bool pass = kept_up && ours <= times_max * peer;
    std::cout << nlohmann::ordered_json{{"bench", "live"},
                                        {"row", name},
                                        {"unit", "s"},
                                        {"ours", ours},
                                        {"peer", peer},
                                        {"peer_name", peer_name},
                                        {"ratio", times_max * peer / ours},
                                        {"pass", pass},
                                        {"valid", bench.swaps() > 0},  // or nothing was sealed meanwhile
                                        {"changes_done_of_due", share},
                                        {"failed", bench.failed()},
                                        {"wrong", bench.wrong()},
                                        {"index_swaps", bench.swaps()},
                                        {"acknowledged_p99", bench.acknowledged().At(0.99)},
                                        {"median", live.At(0.5)},
                                        {"median_quiet", quiet.At(0.5)}}
                     .dump()
              << std::endl;
    return pass;
  };
  const bool fast =
      row(StrCat("p99 of ", rate, " searches a second beside 200 changes a second with vectors, 10 with text"),
          live.At(0.99), quiet.At(0.99), "without changes", kP99TimesMax);
  const bool seen =
      row("longest from sending an insert to finding it", bench.visible().At(1), kVisibleSecondsMax, "the promise", 1);
  return fast && seen ? 0 : 1;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) { return retro::Main(argc, argv); }
