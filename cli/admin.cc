// retro admin: what operators ask of a store's shards and replicas.
#include <memory>
#include <string>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/action.h"
#include "cli/admin_call.h"
#include "cli/commands.h"
#include "cli/replica_comparison.h"
#include "common/base/hash.h"
#include "fmt/format.h"

namespace retro::cli {
namespace {

using Stub = adminpb::AdminService::Stub;

constexpr char kFooter[] = R"(
Examples:
  retro admin replicas                            where each replica is, and whether it answers
  retro admin verify --all --timeout 600          whether all replicas hold the same; reads all of each
  retro admin verify --shard 1 --replica b0       a checksum of all that it holds
  retro admin promote --shard 1 --replica b0      make it the primary; refused unless it is in sync
  retro admin train --shard 1                     seal and train now what its index has taken in
  retro admin read-only --shard 1                 refuse writes until --off; a standalone retriever, until it starts again

docs/consistency.md says what each does. With --json, one line with the reply's message.)";

struct Options {
  CommonOptions common;
  uint32_t shard = 0;
  std::string replica;
  bool all = false;
  bool off = false;
};

int RunReplicas(const Options& options, const Console& console) {
  return AskAdminAndPrint<adminpb::ListReplicasRequest, adminpb::ListReplicasResponse>(
      options.common, console, {}, &Stub::ListReplicas, [&console](const adminpb::ListReplicasResponse& response) {
        console.out << fmt::format("{:>5}  {:<16} {:<24} {:<8} {:<12} {:<11} {}\n", "shard", "replica", "address",
                                   "role", "in sync", "answers", "position");
        for (const adminpb::Replica& replica : response.replicas()) {
          console.out << fmt::format(
              "{:>5}  {:<16} {:<24} {:<8} {:<12} {:<11} {}.{}\n", replica.shard(), OneLine(replica.name()),
              OneLine(replica.address()), replica.primary() ? "primary" : "follows",
              replica.in_sync() ? "in sync" : "BEHIND", replica.reachable() ? "answers" : "UNREACHABLE",
              replica.epoch(), replica.position());
        }
      });
}

int RunVerify(const Options& options, const Console& console) {
  if (options.all) return CompareReplicas(options.common, console);
  adminpb::VerifyRequest request;
  request.set_shard(options.shard);
  request.set_replica(options.replica);
  return AskAdminAndPrint<adminpb::VerifyRequest, adminpb::VerifyResponse>(
      options.common, console, request, &Stub::Verify, [&console](const adminpb::VerifyResponse& response) {
        console.out << fmt::format("{}  position {}.{}, {} documents, {} chunks\n",
                                   HexEncode(response.content_sha256()), response.epoch(), response.position(),
                                   Grouped(response.documents()), Grouped(response.chunks()));
      });
}

int RunPromote(const Options& options, const Console& console) {
  adminpb::PromoteRequest request;
  request.set_shard(options.shard);
  request.set_replica(options.replica);
  return AskAdminAndPrint<adminpb::PromoteRequest, adminpb::PromoteResponse>(
      options.common, console, request, &Stub::Promote, [&](const adminpb::PromoteResponse& response) {
        console.out << fmt::format("{} is the primary of shard {} from epoch {} on\n", OneLine(options.replica),
                                   options.shard, response.epoch());
      });
}

int RunCompact(const Options& options, const Console& console) {
  adminpb::CompactRequest request;
  request.set_shard(options.shard);
  adminpb::CompactResponse response;
  const int code = AskAdmin<adminpb::CompactRequest, adminpb::CompactResponse>(options.common, console, request,
                                                                               &Stub::Compact, response);
  return code != kOk ? code : WaitForOperation(options.common, console, response.operation().operation_id());
}

int RunTrain(const Options& options, const Console& console) {
  adminpb::TrainIndexRequest request;
  request.set_shard(options.shard);
  request.set_replica(options.replica);
  adminpb::TrainIndexResponse response;
  const int code = AskAdmin<adminpb::TrainIndexRequest, adminpb::TrainIndexResponse>(options.common, console, request,
                                                                                     &Stub::TrainIndex, response);
  return code != kOk ? code : WaitForOperation(options.common, console, response.operation().operation_id());
}

int RunReadOnly(const Options& options, const Console& console) {
  adminpb::SetReadOnlyRequest request;
  request.set_shard(options.shard);
  request.set_read_only(!options.off);
  return AskAdminAndPrint<adminpb::SetReadOnlyRequest, adminpb::SetReadOnlyResponse>(
      options.common, console, request, &Stub::SetReadOnly, [&](const adminpb::SetReadOnlyResponse&) {
        console.out << fmt::format("shard {} {} writes\n", options.shard, options.off ? "takes" : "refuses");
      });
}

CLI::Option* AddShardOption(CLI::App& action, Options& options) {
  return action.add_option("--shard", options.shard, "The shard's number")->capture_default_str();
}

}  // namespace

void AddAdminCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("admin", "Look after shards and replicas");
  command->require_subcommand(1);
  AddAction(*command, options, invocation, "replicas", "Show all replicas of all shards", RunReplicas);
  CLI::App* verify = AddAction(*command, options, invocation, "verify",
                               "Compute a checksum of what a shard holds, or compare replicas", RunVerify);
  CLI::Option* verified_shard = AddShardOption(*verify, *options);
  CLI::Option* verified_replica =
      verify->add_option("--replica", options->replica, "The replica's name; the primary if it is not given");
  verify->add_flag("--all", options->all, "Compare the replicas of each shard")
      ->excludes(verified_shard)
      ->excludes(verified_replica);
  CLI::App* promote = AddAction(*command, options, invocation, "promote", "Make a replica the primary", RunPromote);
  AddShardOption(*promote, *options);
  promote->add_option("--replica", options->replica, "The replica's name")->required();
  CLI::App* compact = AddAction(*command, options, invocation, "compact",
                                "Give back the disk space of what was deleted or replaced; a replica of a cluster "
                                "keeps what its last --log-changes-max changes freed",
                                RunCompact);
  AddShardOption(*compact, *options);
  CLI::App* train = AddAction(*command, options, invocation, "train",
                              "Seal and train now what an index has taken in since it last did", RunTrain);
  AddShardOption(*train, *options);
  train->add_option("--replica", options->replica, "The replica's name; the primary if it is not given");
  CLI::App* read_only = AddAction(*command, options, invocation, "read-only", "Refuse writes to a shard", RunReadOnly);
  AddShardOption(*read_only, *options);
  read_only->add_flag("--off", options->off, "Take writes again");
  command->footer(kFooter);  // last: subcommands would inherit it
}

}  // namespace retro::cli
