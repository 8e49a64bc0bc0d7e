// A retriever's searches, one after the other, by effort: the client of `tests/bench/run.sh scale`.
//   search_bench ADDRESS VECTORS RECALL
// Prints a JSON line an effort, up to the first that reaches RECALL: recall@10, median and p99 in microseconds as the
// caller sees them, and the time of these that is the index's, median.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/bench/bench.h"
#include "tests/bench/store/bench_store.h"

namespace retro {
namespace {

constexpr int kEffortSteps = 20;
constexpr int kFirstStep = 4;

pb::SearchResponse Search(pb::RetrieverService::Stub& stub, const pb::SearchRequest& request) {
  grpc::ClientContext context;
  pb::SearchResponse response;
  const grpc::Status status = stub.Search(&context, request, &response);
  if (!status.ok()) OrDie(absl::InternalError(status.error_message()));
  return response;
}

// Recall.
double Measure(pb::RetrieverService::Stub& stub, const BenchVectors& vectors, const std::string& fingerprint,
               float effort) {
  std::vector<double> total_us, index_us;
  int64_t right = 0;
  for (uint32_t query = 0; query < vectors.queries(); ++query) {
    const pb::SearchRequest request = MakeSearch(vectors, query, fingerprint, effort);
    const auto start = std::chrono::steady_clock::now();
    const pb::SearchResponse response = Search(stub, request);
    total_us.push_back(SecondsSince(start) * 1e6);
    index_us.push_back(response.times().search().nanos() / 1e3);
    right += vectors.RightOf(query, response.results(0));
  }
  const double recall = static_cast<double>(right) / (vectors.queries() * kBenchK);
  std::cout << nlohmann::json{{"effort", effort},
                              {"recall", recall},
                              {"p50_us", Percentile(total_us, 0.5)},
                              {"p99_us", Percentile(total_us, 0.99)},
                              {"index_us", Percentile(index_us, 0.5)}}
            << std::endl;
  return recall;
}

int Main(const std::string& address, const std::string& folder, double recall) {
  const BenchVectors vectors(folder);
  const auto stub = pb::RetrieverService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  pb::GetInfoResponse info;
  const grpc::Status status = stub->GetInfo(&context, {}, &info);
  if (!status.ok()) OrDie(absl::InternalError(status.error_message()));
  const auto effort = [](int step) { return static_cast<float>(step) / kEffortSteps; };
  for (uint32_t query = 0; query < vectors.queries(); ++query) {  // so that all comes from memory
    Search(*stub, MakeSearch(vectors, query, info.embedder_fingerprint(), effort(kEffortSteps / 2)));
  }
  for (int step = kFirstStep; step <= kEffortSteps; ++step) {
    if (Measure(*stub, vectors, info.embedder_fingerprint(), effort(step)) >= recall) return 0;
  }
  return 1;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: search_bench ADDRESS VECTORS RECALL\n");
    return 2;
  }
  return retro::Main(argv[1], argv[2], std::stod(argv[3]));
}
