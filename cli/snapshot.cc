// retro snapshot: consistent copies of shards, made while they serve.
#include <memory>
#include <string>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/action.h"
#include "cli/admin_call.h"
#include "cli/commands.h"
#include "fmt/format.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

using Stub = adminpb::AdminService::Stub;

constexpr char kFooter[] = R"(
Examples:
  retro snapshot create                one of every shard, under the servers' --snapshot-dir; prints their names
  retro snapshot list
  retro snapshot restore NAME NAME     make what the store holds what these hold, in their slots
  retro snapshot delete NAME

A restore needs no shard to be as it was: documents go where they belong now. Searches go on meanwhile.)";

struct Options {
  CommonOptions common;
  std::vector<uint32_t> shards;
  std::vector<std::string> names;
};

// Those that were named, or all.
int FindShards(const Options& options, const Console& console, std::vector<uint32_t>& shards) {
  shards = options.shards;
  if (!shards.empty()) return kOk;
  pb::GetInfoResponse info;
  Call call(options.common.timeout_s);
  const grpc::Status status = ConnectRetriever(options.common)->GetInfo(call.context(), pb::GetInfoRequest(), &info);
  if (!status.ok()) return ReportFailure(console, RetrieverPeer(options.common), status);
  for (uint32_t i = 0; i < info.shard_count(); ++i) shards.push_back(i);
  return kOk;
}

int RunCreate(const Options& options, const Console& console) {
  std::vector<uint32_t> shards;
  if (const int code = FindShards(options, console, shards); code != kOk) return code;
  for (const uint32_t shard : shards) {
    adminpb::CreateSnapshotRequest request;
    request.set_shard(shard);
    adminpb::CreateSnapshotResponse response;
    int code = AskAdmin<adminpb::CreateSnapshotRequest, adminpb::CreateSnapshotResponse>(
        options.common, console, request, &Stub::CreateSnapshot, response);
    if (code == kOk) code = WaitForOperation(options.common, console, response.operation().operation_id());
    if (code != kOk) return code;
    console.out << (options.common.json ? MessageToJson(response) : response.name()) << '\n';
  }
  return kOk;
}

int RunList(const Options& options, const Console& console) {
  return AskAdminAndPrint<adminpb::ListSnapshotsRequest, adminpb::ListSnapshotsResponse>(
      options.common, console, {}, &Stub::ListSnapshots, [&console](const adminpb::ListSnapshotsResponse& response) {
        for (const adminpb::Snapshot& snapshot : response.snapshots()) {
          console.out << fmt::format("{:<44} {}  shard {}, position {}.{}, {}\n", OneLine(snapshot.name()),
                                     google::protobuf::util::TimeUtil::ToString(snapshot.create_time()),
                                     snapshot.shard(), snapshot.epoch(), snapshot.position(),
                                     HumanBytes(static_cast<double>(snapshot.size_bytes())));
        }
      });
}

int RunDelete(const Options& options, const Console& console) {
  for (const std::string& name : options.names) {
    adminpb::DeleteSnapshotRequest request;
    request.set_name(name);
    adminpb::DeleteSnapshotResponse response;
    const int code = AskAdmin<adminpb::DeleteSnapshotRequest, adminpb::DeleteSnapshotResponse>(
        options.common, console, request, &Stub::DeleteSnapshot, response);
    if (code != kOk) return code;
  }
  return kOk;
}

int RunRestore(const Options& options, const Console& console) {
  for (const std::string& name : options.names) {
    adminpb::RestoreSnapshotRequest request;
    request.set_name(name);
    adminpb::RestoreSnapshotResponse response;
    int code = AskAdmin<adminpb::RestoreSnapshotRequest, adminpb::RestoreSnapshotResponse>(
        options.common, console, request, &Stub::RestoreSnapshot, response);
    if (code == kOk) code = WaitForOperation(options.common, console, response.operation().operation_id());
    if (code != kOk) return code;
  }
  return kOk;
}

}  // namespace

void AddSnapshotCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("snapshot", "Make, list, delete and restore snapshots");
  command->require_subcommand(1);
  CLI::App* create = AddAction(*command, options, invocation, "create", "Make snapshots", RunCreate);
  create->add_option("--shard", options->shards, "A shard's number, as often as wanted; all if not given");
  AddAction(*command, options, invocation, "list", "Show the snapshots, newest first", RunList);
  for (const bool restores : {false, true}) {
    CLI::App* action =
        AddAction(*command, options, invocation, restores ? "restore" : "delete",
                  restores ? "Restore snapshots" : "Delete snapshots", restores ? RunRestore : RunDelete);
    action->add_option("name", options->names, "As listed")->required();
  }
  command->footer(kFooter);  // last: subcommands would inherit it
}

}  // namespace retro::cli
