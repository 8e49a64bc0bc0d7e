#include "cli/replica_comparison.h"

#include <algorithm>
#include <future>
#include <map>
#include <string>
#include <vector>

#include "cli/admin_call.h"
#include "cli/connection.h"
#include "common/base/hash.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

constexpr int kTriesMax = 5;

enum class Verdict { kPrimary, kEqual, kDiffers, kNotCompared, kNoAnswer };
constexpr const char* kNames[] = {"primary", "equal", "DIFFERS", "NOT COMPARED", "NO ANSWER"};

// What one replica says that it holds.
struct Held {
  adminpb::Replica replica;
  grpc::Status status;
  adminpb::VerifyResponse content;
  Verdict verdict = Verdict::kNoAnswer;
};

void Ask(const CommonOptions& options, Held& held) {
  adminpb::VerifyRequest request;
  request.set_shard(held.replica.shard());
  request.set_replica(held.replica.name());
  held.content.Clear();
  Call call(options.timeout_s);
  held.status = ConnectAdmin(options)->Verify(call.context(), request, &held.content);
}

// False if another try may tell more.
bool Judge(std::vector<Held>& shard) {
  const auto is_primary = [](const Held& held) { return held.replica.primary(); };
  const auto primary = std::find_if(shard.begin(), shard.end(), is_primary);
  const bool is_there = primary != shard.end() && primary->status.ok();
  bool is_final = true;
  for (auto held = shard.begin(); held != shard.end(); ++held) {
    if (!held->status.ok()) {
      held->verdict = Verdict::kNoAnswer;
    } else if (held == primary) {
      held->verdict = Verdict::kPrimary;
    } else if (!is_there || held->content.epoch() != primary->content.epoch() ||
               held->content.position() != primary->content.position()) {
      held->verdict = Verdict::kNotCompared;
      is_final = is_final && !is_there;
    } else {
      const bool equal = held->content.content_sha256() == primary->content.content_sha256();
      held->verdict = equal ? Verdict::kEqual : Verdict::kDiffers;
    }
  }
  return is_final;
}

// All at once: what is asked at the same time is most likely at the same position.
void AskShard(const CommonOptions& options, std::vector<Held>& shard) {
  for (int tries = 0; tries < kTriesMax && !Interrupted(); ++tries) {
    std::vector<std::future<void>> asked;
    asked.reserve(shard.size());
    for (Held& held : shard) asked.push_back(std::async(std::launch::async, [&] { Ask(options, held); }));
    for (std::future<void>& each : asked) each.get();
    if (Judge(shard)) return;
  }
}

void Print(const Held& held, bool json, const Console& console) {
  const char* verdict = kNames[static_cast<int>(held.verdict)];
  const std::string sha256 = HexEncode(held.content.content_sha256());
  const adminpb::VerifyResponse& content = held.content;
  if (json) {
    const nlohmann::ordered_json line = {
        {"shard", held.replica.shard()}, {"replica", held.replica.name()}, {"verdict", verdict},
        {"epoch", content.epoch()},      {"position", content.position()}, {"documents", content.documents()},
        {"chunks", content.chunks()},    {"content_sha256", sha256}};
    console.out << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  } else {
    console.out << fmt::format("{:>5}  {:<16} {:<12} {:>14} {:>12} {:>12}  {}\n", held.replica.shard(),
                               OneLine(held.replica.name()), verdict,
                               fmt::format("{}.{}", content.epoch(), content.position()), Grouped(content.documents()),
                               Grouped(content.chunks()), sha256);
  }
}

}  // namespace

int CompareReplicas(const CommonOptions& options, const Console& console) {
  adminpb::ListReplicasResponse listed;
  const int code = AskAdmin<adminpb::ListReplicasRequest, adminpb::ListReplicasResponse>(
      options, console, {}, &adminpb::AdminService::Stub::ListReplicas, listed);
  if (code != kOk) return code;
  std::map<uint32_t, std::vector<Held>> shards;
  for (const adminpb::Replica& replica : listed.replicas()) shards[replica.shard()].push_back({replica, {}, {}});
  if (!options.json) {
    console.out << fmt::format("{:>5}  {:<16} {:<12} {:>14} {:>12} {:>12}  {}\n", "shard", "replica", "verdict",
                               "position", "documents", "chunks", "SHA-256");
  }
  bool failed = false;
  for (auto& [number, shard] : shards) {
    AskShard(options, shard);
    if (Interrupted()) return kInterrupted;
    for (const Held& held : shard) {
      Print(held, options.json, console);
      if (!held.status.ok()) ReportFailure(console, RetrieverPeer(options), held.status);
      failed |= held.verdict != Verdict::kPrimary && held.verdict != Verdict::kEqual;
      if (held.verdict == Verdict::kNotCompared) {
        console.err << fmt::format(
            "retro: shard {}: {} and the primary were not seen at one position. If it is written to, try again after "
            "retro admin read-only; if one is behind or does not answer, retro admin replicas shows it\n",
            number, OneLine(held.replica.name()));
      }
    }
  }
  return failed ? kFailed : kOk;
}

}  // namespace retro::cli
