// See ../overload.sh.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/base/strings.h"
#include "common/base/sync.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro {
namespace {

namespace pb = retriever::v1;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kDocuments = 512;
constexpr int kWordsADocument = 200;
constexpr int kWordsAQuery = 10;
constexpr int kCallers = 16;  // as many as the retriever has workers
constexpr milliseconds kDeadline{1000};
constexpr double kAnsweredMin = 0.7;  // of what it can carry
constexpr double kGrowthMaxMib = 64;
constexpr double kUsualLoad = 0.5;  // of what it can carry, before and after
constexpr double kP99TimesMax = 1.5;

std::string Words(std::mt19937& random, int count) {
  static const char* const kWords[] = {"harbour", "lighthouse", "package",  "kernel", "history", "river",
                                       "engine",  "paper",      "mountain", "letter", "window",  "music",
                                       "garden",  "winter",     "copper",   "island"};
  std::string text;
  for (int i = 0; i < count; ++i)
    text += StrCat(i == 0 ? "" : " ", kWords[random() % std::size(kWords)], random() % 100);
  return text;
}

// What came of the searches of one phase.
class Outcome {
 public:
  void Add(const grpc::Status& status, Clock::duration time) {
    const MutexLock lock(mutex_);
    ++codes_[status.error_code()];
    if (status.ok()) times_ms_.push_back(std::chrono::duration<double, std::milli>(time).count());
  }
  int64_t Count(grpc::StatusCode code) {
    const MutexLock lock(mutex_);
    return codes_[code];
  }
  double Percentile(double share) {
    const MutexLock lock(mutex_);
    if (times_ms_.empty()) return 0;
    std::sort(times_ms_.begin(), times_ms_.end());
    return times_ms_[static_cast<size_t>(share * static_cast<double>(times_ms_.size() - 1))];
  }
  nlohmann::json Codes() {
    const MutexLock lock(mutex_);
    nlohmann::json codes;
    for (const auto& [code, count] : codes_) codes[std::to_string(code)] = count;
    return codes;
  }

 private:
  Mutex mutex_;
  std::map<grpc::StatusCode, int64_t> codes_ ABSL_GUARDED_BY(mutex_);
  std::vector<double> times_ms_ ABSL_GUARDED_BY(mutex_);
};

class Load {
 public:
  explicit Load(const std::shared_ptr<grpc::Channel>& channel) : stub_(pb::RetrieverService::NewStub(channel)) {}

  void Fill() {
    std::mt19937 random(1);
    for (int i = 0; i < kDocuments; i += 16) {
      pb::UpsertDocumentsRequest request;
      for (int j = i; j < i + 16; ++j) {
        auto& document = *request.add_writes()->mutable_document();
        document.set_id(std::to_string(j));
        document.set_text(Words(random, kWordsADocument));
      }
      grpc::ClientContext context;
      context.set_wait_for_ready(true);
      pb::UpsertDocumentsResponse response;
      const grpc::Status status = stub_->UpsertDocuments(&context, request, &response);
      if (status.ok()) continue;
      std::cerr << status.error_message() << '\n';
      std::exit(1);
    }
  }

  // Callers that each ask again as soon as they have their answer.
  void Closed(std::chrono::seconds time, Outcome& outcome) {
    std::vector<std::thread> callers;
    const Clock::time_point end = Clock::now() + time;
    for (int i = 0; i < kCallers; ++i) {
      callers.emplace_back([this, i, end, &outcome] {
        std::mt19937 random(static_cast<uint32_t>(i));
        while (Clock::now() < end) {
          Search search(random);
          const Clock::time_point start = Clock::now();
          const grpc::Status status = stub_->Search(&search.context, search.request, &search.response);
          outcome.Add(status, Clock::now() - start);
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
  }

  // `rate` searches a second, whatever becomes of them; returns when the last has ended.
  void Open(std::chrono::seconds time, double rate, Outcome& outcome) {
    std::mt19937 random(7);
    const Clock::time_point start = Clock::now();
    for (int64_t sent = 0;; ++sent) {
      const Clock::time_point due =
          start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(sent / rate));
      if (due > start + time) break;
      std::this_thread::sleep_until(due);
      auto search = std::make_shared<Search>(random);
      {
        const MutexLock lock(mutex_);
        ++under_way_;
      }
      stub_->async()->Search(&search->context, &search->request, &search->response,
                             [this, search, sent_at = Clock::now(), &outcome](const grpc::Status& status) {
                               outcome.Add(status, Clock::now() - sent_at);
                               const MutexLock lock(mutex_);
                               if (--under_way_ == 0) idle_.NotifyAll();
                             });
    }
    const MutexLock lock(mutex_);
    while (under_way_ > 0) idle_.Wait(mutex_);
  }

 private:
  struct Search {
    explicit Search(std::mt19937& random) {
      request.add_queries()->set_text(Words(random, kWordsAQuery));
      context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    }
    grpc::ClientContext context;
    pb::SearchRequest request;
    pb::SearchResponse response;
  };

  const std::unique_ptr<pb::RetrieverService::Stub> stub_;
  Mutex mutex_;
  CondVar idle_;
  int64_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;
};

// The most that it had resident since ForgetPeak.
double PeakMib(int process) {
  std::ifstream status(StrCat("/proc/", process, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

bool ForgetPeak(int process) {
  std::ofstream file(StrCat("/proc/", process, "/clear_refs"));
  file << "5" << std::flush;
  return file.good();
}

struct Phase {
  nlohmann::json row;
  double answered_per_s = 0, p99_ms = 0, peak_mib = 0;
};

Phase Measure(Load& load, const std::string& name, std::chrono::seconds time, double rate, int service) {
  Outcome outcome;
  if (!ForgetPeak(service)) {
    std::cerr << "overload_bench: cannot reset the peak of process " << service << std::endl;
    std::exit(1);
  }
  load.Open(time, rate, outcome);
  Phase phase;
  const auto seconds = static_cast<double>(time.count());
  phase.answered_per_s = static_cast<double>(outcome.Count(grpc::StatusCode::OK)) / seconds;
  phase.p99_ms = outcome.Percentile(0.99);
  phase.peak_mib = PeakMib(service);
  phase.row = {{"phase", name},
               {"offered_per_s", rate},
               {"answered_per_s", phase.answered_per_s},
               {"refused_per_s", static_cast<double>(outcome.Count(grpc::StatusCode::RESOURCE_EXHAUSTED)) / seconds},
               {"late_per_s", static_cast<double>(outcome.Count(grpc::StatusCode::DEADLINE_EXCEEDED)) / seconds},
               {"median_ms", outcome.Percentile(0.5)},
               {"p99_ms", phase.p99_ms},
               {"peak_mib", phase.peak_mib},
               {"codes", outcome.Codes()}};
  std::cerr << phase.row.dump() << std::endl;
  return phase;
}

int Main(int argc, char** argv) {
  std::string address;
  int service = 0, seconds = 15;
  double times = 10;
  CLI::App app("A retriever at many times the load that it can carry", "overload_bench");
  app.add_option("--address", address, "Of the retriever")->required();
  app.add_option("--service", service, "Its process")->required();
  app.add_option("--seconds", seconds, "Of each phase")->capture_default_str();
  app.add_option("--times", times, "How many times the load")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  Load load(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  load.Fill();
  const std::chrono::seconds time(seconds);
  Outcome capacity;
  load.Closed(time, capacity);
  const double carried = static_cast<double>(capacity.Count(grpc::StatusCode::OK)) / seconds;
  const Phase before = Measure(load, "before", time, kUsualLoad * carried, service);
  const Phase during = Measure(load, "during", time, times * carried, service);
  const Phase after = Measure(load, "after", time, kUsualLoad * carried, service);
  const double growth = std::max(during.peak_mib, after.peak_mib) - before.peak_mib;
  const bool pass = during.answered_per_s >= kAnsweredMin * carried && growth <= kGrowthMaxMib &&
                    after.p99_ms <= kP99TimesMax * before.p99_ms;
  std::cout << nlohmann::json{{"bench", "overload"},
                              {"row", StrCat("searches answered in time at ", times, " times the load")},
                              {"ours", during.answered_per_s},
                              {"peer", carried},
                              {"peer_name", "what it carries"},
                              {"unit", "searches/s"},
                              {"ratio", during.answered_per_s / (kAnsweredMin * carried)},
                              {"pass", pass},
                              {"valid", true},
                              {"memory_growth_mib", growth},
                              {"phases", {before.row, during.row, after.row}}}
                   .dump()
            << std::endl;
  return pass ? 0 : 1;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) { return retro::Main(argc, argv); }
