// retro doctor: looks at a deployment as a client of it sees it, and says of everything that is not as it should be
// what to do.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/service_health.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/rpc/server.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kFooter[] = R"(
Examples:
  retro doctor
  retro doctor --tls-ca ca.pem --api-key-file me.apikey --json

Looks at reachability, TLS and keys, health, versions, coverage, read-only shards, one search, one generated token, and
whether store and model belong together. Exit code 0 if nothing fails, 1 if something does, 3 if a service cannot be
reached. A warning fails nothing.)";

constexpr double kSlow_s = 1.0;  // for one query of a service that is at rest

enum class Verdict { kOk, kWarning, kFailure };

// What was looked at, one line each, printed as it comes.
class Findings {
 public:
  Findings(const Console& console, bool json) : console_(console), json_(json) {}

  void Add(Verdict verdict, const std::string& subject, const std::string& what) {
    static constexpr const char* kNames[] = {"ok", "warning", "FAILED"};
    const char* name = kNames[static_cast<int>(verdict)];
    if (json_) {
      console_.out << nlohmann::ordered_json{{"verdict", name}, {"subject", subject}, {"finding", what}}.dump() << '\n';
    } else {
      console_.out << fmt::format("{:<8} {:<10} {}\n", name, subject, OneLine(what));
    }
    failed_ = failed_ || verdict == Verdict::kFailure;
  }
  // A check that either holds or is told as `verdict` with what to do.
  void Check(bool holds, const std::string& subject, const std::string& fine, Verdict verdict,
             const std::string& otherwise) {
    Add(holds ? Verdict::kOk : verdict, subject, holds ? fine : otherwise);
  }
  // False, and a failure is noted, if the call failed.
  bool Reached(const Peer& peer, const std::string& what, const grpc::Status& status) {
    if (status.ok()) return true;
    Add(Verdict::kFailure, peer.name, StrCat(what, ": ", DescribeFailure(peer, status)));
    unreachable_ = unreachable_ || IsUnreachable(status);
    return false;
  }

  int code() const { return unreachable_ ? kUnreachable : failed_ ? kFailed : kOk; }

 private:
  const Console& console_;
  const bool json_;
  bool failed_ = false;
  bool unreachable_ = false;
};

bool HealthAsItShould(const Peer& peer, const CommonOptions& options, Findings& findings) {
  for (const HealthName& name : HealthNamesOf(peer)) {
    std::string state;
    const grpc::Status status = AskHealth(peer, name, options.timeout_s, state);
    if (status.error_code() == grpc::StatusCode::NOT_FOUND) continue;  // a server without that name
    if (!findings.Reached(peer, "health", status)) return false;
    findings.Check(state == "SERVING", peer.name, name.meaning, Verdict::kFailure,
                   StrCat("its health says ", state, " to '", name.meaning, "': look at its log"));
  }
  return true;
}

// What goes over the wire unprotected, and who is let in.
void LookAtSecurity(const Peer& peer, const CommonOptions& options, Findings& findings) {
  const bool tls = !options.security.ca.empty();
  findings.Check(tls || IsLoopback(peer.address), peer.name, tls ? "speaks TLS" : "is on this machine",
                 Verdict::kWarning, StrCat(peer.address, " is another machine and speaks plaintext: serve TLS there"));
  if (options.security.api_key_file.empty() && options.security.api_key.empty()) return;
  ClientSecurity nobody = options.security;
  nobody.api_key.clear();
  nobody.api_key_file.clear();
  const auto channel = MakeChannel(peer.address, nobody, {});
  if (!channel.ok()) return;
  Call call(options.timeout_s);
  grpc::Status status;
  if (peer.name == "retriever") {
    pb::GetInfoResponse ignored;
    status = pb::RetrieverService::NewStub(*channel)->GetInfo(call.context(), {}, &ignored);
  } else {
    gen::GetModelResponse ignored;
    status = gen::GeneratorService::NewStub(*channel)->GetModel(call.context(), {}, &ignored);
  }
  findings.Check(status.error_code() == grpc::StatusCode::UNAUTHENTICATED, peer.name, "refuses calls without a key",
                 Verdict::kWarning, "takes calls without a key, though you have one: start it with --api-keys");
}

void LookAtShards(const pb::StatsResponse& stats, Findings& findings) {
  const pb::Coverage& coverage = stats.coverage();
  findings.Check(coverage.shards_answered() >= coverage.shards_asked(), "retriever", "all shards answer",
                 Verdict::kFailure,
                 fmt::format("only {} of {} shards answer: searches miss documents", coverage.shards_answered(),
                             coverage.shards_asked()));
  uint64_t chunks = 0;
  for (const pb::ShardStats& shard : stats.shards()) {
    for (const pb::CollectionStats& collection : shard.collections()) chunks += collection.chunks();
    if (!shard.read_only()) continue;
    findings.Add(Verdict::kFailure, "retriever",
                 fmt::format("shard {} refuses writes: is its disk full? See docs/runbooks.md", shard.shard()));
  }
  findings.Check(chunks > 0, "retriever", fmt::format("{} chunks can be found", Grouped(chunks)), Verdict::kWarning,
                 "nothing is stored yet: retro ingest FOLDER");
}

void LookAtSearch(const Peer& peer, const CommonOptions& options, Findings& findings) {
  pb::SearchRequest request;
  request.set_collection(options.collection);
  request.add_queries()->set_text("is anybody there?");
  pb::SearchResponse response;
  Call call(options.timeout_s);
  const auto start = Clock::now();
  const grpc::Status status = pb::RetrieverService::NewStub(peer.channel)->Search(call.context(), request, &response);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (!findings.Reached(peer, "a search", status)) return;
  findings.Check(seconds < kSlow_s, peer.name, fmt::format("a search took {:.0f} ms", seconds * 1e3), Verdict::kWarning,
                 fmt::format("a search took {:.1f} s: is it overloaded?", seconds));
}

// Its fingerprint of the embedder, empty if it could not be asked.
std::string LookAtRetriever(const Peer& peer, const CommonOptions& options, Findings& findings) {
  if (!HealthAsItShould(peer, options, findings)) return "";
  LookAtSecurity(peer, options, findings);
  const auto stub = pb::RetrieverService::NewStub(peer.channel);
  pb::GetInfoResponse info;
  Call info_call(options.timeout_s);
  if (!findings.Reached(peer, "GetInfo", stub->GetInfo(info_call.context(), {}, &info))) return "";
  findings.Check(info.version() == RETRO_VERSION, peer.name, "is of this version", Verdict::kWarning,
                 StrCat("is of version ", info.version(), ", this program of ", RETRO_VERSION));
  pb::StatsResponse stats;
  Call stats_call(options.timeout_s);
  if (findings.Reached(peer, "Stats", stub->Stats(stats_call.context(), {}, &stats))) LookAtShards(stats, findings);
  LookAtSearch(peer, options, findings);
  return info.embedder_fingerprint();
}

void LookAtToken(const Peer& peer, const CommonOptions& options, Findings& findings) {
  gen::GenerateRequest request;
  request.set_text("Is anybody there?");
  request.set_max_tokens(1);
  request.mutable_retrieval()->set_collection(options.collection);
  Call call(options.timeout_s);
  const auto stream = gen::GeneratorService::NewStub(peer.channel)->Generate(call.context(), request);
  gen::GenerateResponse event;
  bool degraded = false;
  while (stream->Read(&event)) {
    degraded = degraded || (event.has_retrieval() && event.retrieval().degradation() != gen::DEGRADATION_NONE);
  }
  if (!findings.Reached(peer, "a token", stream->Finish())) return;
  findings.Check(!degraded, peer.name, "generates, with neighbours as it should", Verdict::kFailure,
                 "generates without the neighbours that it should have: look at its retriever");
}

void LookAtGenerator(const Peer& peer, const CommonOptions& options, const std::string& embedder, Findings& findings) {
  if (!HealthAsItShould(peer, options, findings)) return;
  LookAtSecurity(peer, options, findings);
  gen::GetModelResponse model;
  Call call(options.timeout_s);
  const grpc::Status status =
      gen::GeneratorService::NewStub(peer.channel)->GetModel(call.context(), gen::GetModelRequest(), &model);
  if (!findings.Reached(peer, "GetModel", status)) return;
  for (const std::string& warning : model.warnings()) findings.Add(Verdict::kWarning, peer.name, warning);
  if (!embedder.empty() && !model.trained_embedder_fingerprint().empty()) {
    findings.Check(
        embedder == model.trained_embedder_fingerprint(), peer.name, "was trained with the retriever's embedder",
        Verdict::kWarning,
        "was trained with another embedder than the retriever's: its neighbours are not what it learnt with");
  }
  LookAtToken(peer, options, findings);
}

int RunDoctor(const CommonOptions& options, const Console& console) {
  Findings findings(console, options.json);
  const std::string embedder = LookAtRetriever(RetrieverPeer(options), options, findings);
  LookAtGenerator(GeneratorPeer(options), options, embedder, findings);
  return findings.code();
}

}  // namespace

void AddDoctorCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<CommonOptions>();
  CLI::App* command = app.add_subcommand("doctor", "Check a deployment from a client's side");
  command->footer(kFooter);
  AddCommonOptions(*command, *options, {.retriever = true, .generator = true, .collection = true});
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunDoctor(*options, invocation.console); };
  });
}

}  // namespace retro::cli
