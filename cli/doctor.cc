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
#include "cli/admin_call.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/service_health.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/rpc/server.h"
#include "fmt/format.h"
#include "grpc/grpc_security_constants.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kFooter[] = R"(
Examples:
  retro doctor
  retro doctor --tls-ca ca.pem --api-key-file me.apikey --json

Looks at reachability, TLS and keys, when certificates end, health, both services' versions, coverage, read-only
shards, indexes, one search, one generated token, whether store and model belong together, and, with an admin key,
every replica. Exit code 0 if nothing fails, 1 if something does, 3 if a service cannot be reached. A warning fails
nothing.)";

constexpr double kSlow_s = 1.0;  // for one query of a service that is at rest
// As deploy/prometheus/rules.yml has them.
constexpr double kRecallMin = 0.85;
constexpr std::chrono::hours kCertificateMin(7 * 24);

enum class Verdict { kOk, kNotSeen, kWarning, kFailure };

// What was looked at, one line each, printed as it comes.
class Findings {
 public:
  Findings(const Console& console, bool json) : console_(console), json_(json) {}

  void Add(Verdict verdict, const std::string& subject, const std::string& what) {
    static constexpr const char* kNames[] = {"ok", "not seen", "warning", "FAILED"};
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

void LookAtExpiry(const std::string& subject, const std::string& pem, const std::string& whose, Findings& findings) {
  const auto end = CertificateExpiry(pem, whose);
  if (!end.ok()) {
    findings.Add(Verdict::kWarning, subject, std::string(end.status().message()));
    return;
  }
  const auto left = std::chrono::duration_cast<std::chrono::hours>(*end - std::chrono::system_clock::now());
  findings.Check(left >= kCertificateMin, subject, fmt::format("{} ends in {} days", whose, left.count() / 24),
                 Verdict::kWarning,
                 fmt::format("{} ends in {} hours: replace it (docs/runbooks.md)", whose, left.count()));
}

// The certificate that `context`'s peer showed, which may be a proxy's, and this client's own.
void LookAtCertificates(const Peer& peer, const grpc::ClientContext& context, const CommonOptions& options,
                        Findings& findings) {
  const auto shown = context.auth_context()->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  for (const grpc::string_ref& pem : shown) {
    LookAtExpiry(peer.name, std::string(pem.data(), pem.size()), "its certificate", findings);
  }
  if (options.security.certificate.empty()) return;
  const auto own = ReadFile(options.security.certificate);
  if (own.ok()) LookAtExpiry(peer.name, *own, "your certificate for it", findings);
}

void LookAtVersion(const Peer& peer, const std::string& version, Findings& findings) {
  findings.Check(version == RETRO_VERSION, peer.name, "is of this version", Verdict::kWarning,
                 StrCat("is of version ", version, ", this program of ", RETRO_VERSION));
}

void LookAtIndex(uint32_t shard, const pb::CollectionStats& collection, Findings& findings) {
  const std::string index = fmt::format("the index of \"{}\" in shard {}", collection.collection(), shard);
  if (collection.index_state() == pb::INDEX_STATE_TRAINING) {
    findings.Add(Verdict::kWarning, "retriever", index + " is being trained: searches compare every chunk meanwhile");
  } else if (collection.index_state() == pb::INDEX_STATE_REBUILDING) {
    findings.Add(Verdict::kWarning, "retriever", index + " is being made again from the store");
  }
  if (!collection.has_measured_recall() || collection.measured_recall() >= kRecallMin) return;
  findings.Add(Verdict::kWarning, "retriever",
               fmt::format("{} finds {:.0f} % of what an exact search does: ask with a higher --effort until it has "
                           "been trained anew",
                           index, collection.measured_recall() * 100));
}

// Replicas are shown to admin keys alone.
void LookAtReplicas(const Peer& peer, const CommonOptions& options, Findings& findings) {
  adminpb::ListReplicasResponse response;
  Call call(options.timeout_s);
  const grpc::Status status = ConnectAdmin(options)->ListReplicas(call.context(), {}, &response);
  if (status.error_code() == grpc::StatusCode::PERMISSION_DENIED ||
      status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
    findings.Add(Verdict::kNotSeen, peer.name,
                 "shows its replicas, and so whether writes can succeed, to admin keys alone");
    return;
  }
  if (!findings.Reached(peer, "ListReplicas", status)) return;
  int missing = 0;
  for (const adminpb::Replica& replica : response.replicas()) {
    if (replica.reachable() && replica.in_sync()) continue;
    ++missing;
    const std::string which = fmt::format("replica {} of shard {} ", replica.name(), replica.shard());
    if (replica.primary() && !replica.reachable()) {
      findings.Add(Verdict::kFailure, peer.name, which + "is its primary and does not answer: writes fail");
    } else {
      findings.Add(Verdict::kWarning, peer.name,
                   which + (replica.reachable() ? "is not in sync" : "does not answer") +
                       ": one failure fewer is survived (docs/runbooks.md)");
    }
  }
  if (missing == 0) {
    findings.Add(Verdict::kOk, peer.name, fmt::format("all {} replicas are in sync", response.replicas_size()));
  }
}

void LookAtShards(const pb::StatsResponse& stats, Findings& findings) {
  const pb::Coverage& coverage = stats.coverage();
  findings.Check(coverage.shards_answered() >= coverage.shards_asked(), "retriever", "all shards answer",
                 Verdict::kFailure,
                 fmt::format("only {} of {} shards answer: searches miss documents", coverage.shards_answered(),
                             coverage.shards_asked()));
  uint64_t chunks = 0;
  for (const pb::ShardStats& shard : stats.shards()) {
    for (const pb::CollectionStats& collection : shard.collections()) {
      chunks += collection.chunks();
      LookAtIndex(shard.shard(), collection, findings);
    }
    if (!shard.read_only()) continue;
    findings.Add(Verdict::kFailure, "retriever",
                 fmt::format("shard {} refuses writes: is its disk full, or was `retro admin read-only` said? See "
                             "docs/runbooks.md",
                             shard.shard()));
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
  LookAtCertificates(peer, *info_call.context(), options, findings);
  LookAtVersion(peer, info.version(), findings);
  pb::StatsResponse stats;
  Call stats_call(options.timeout_s);
  if (findings.Reached(peer, "Stats", stub->Stats(stats_call.context(), {}, &stats))) LookAtShards(stats, findings);
  LookAtReplicas(peer, options, findings);
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
  LookAtCertificates(peer, *call.context(), options, findings);
  LookAtVersion(peer, model.version(), findings);
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
