// retro snapshot: consistent copies of shards, made while they serve.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/action.h"
#include "cli/admin_call.h"
#include "cli/commands.h"
#include "common/base/strings.h"
#include "common/document/snapshot_name.h"
#include "fmt/format.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

using Stub = adminpb::AdminService::Stub;

constexpr char kFooter[] = R"(
Examples:
  retro snapshot create                one of every shard, under the servers' --snapshot-dir; prints their names
  retro snapshot create --keep 7       and then deletes what is older than the 7 newest of each, if all were made
  retro snapshot list
  retro snapshot restore NAME NAME     make what the store holds what these hold, in their slots
  retro snapshot delete NAME

A restore needs no shard to be as it was: documents go where they belong now. Searches go on meanwhile.)";

struct Options {
  CommonOptions common;
  std::vector<uint32_t> shards;
  std::optional<uint32_t> keep;  // of each shard; all if not given
  std::vector<std::string> names;
};

// The store, and those of its shards that were named, or all.
int FindShards(const Options& options, const Console& console, std::string& store_id, std::vector<uint32_t>& shards) {
  pb::GetInfoResponse info;
  Call call(options.common.timeout_s);
  const grpc::Status status = ConnectRetriever(options.common)->GetInfo(call.context(), pb::GetInfoRequest(), &info);
  if (!status.ok()) return ReportFailure(console, RetrieverPeer(options.common), status);
  store_id = info.store_id();
  shards = options.shards;
  if (!shards.empty()) return kOk;
  for (uint32_t i = 0; i < info.shard_count(); ++i) shards.push_back(i);
  return kOk;
}

int Delete(const Options& options, const Console& console, const std::string& name) {
  adminpb::DeleteSnapshotRequest request;
  request.set_name(name);
  adminpb::DeleteSnapshotResponse response;
  return AskAdmin<adminpb::DeleteSnapshotRequest, adminpb::DeleteSnapshotResponse>(options.common, console, request,
                                                                                   &Stub::DeleteSnapshot, response);
}

// Of the shards that those in `made` are of, all but the `keep` newest. These are the newest, whatever clocks say. The
// folder may hold other stores' snapshots, and those of shards that had other slots before a store was cut anew.
// `listed` is newest first.
std::vector<adminpb::Snapshot> OlderThanKept(const adminpb::ListSnapshotsResponse& listed,
                                             const std::set<std::string>& made, const std::string& store_id,
                                             uint32_t keep) {
  std::map<uint32_t, const adminpb::Snapshot*> made_of;
  for (const adminpb::Snapshot& snapshot : listed.snapshots()) {
    if (made.contains(snapshot.name())) made_of[snapshot.shard()] = &snapshot;
  }
  std::map<uint32_t, uint32_t> kept;
  std::vector<adminpb::Snapshot> older;
  for (const adminpb::Snapshot& snapshot : listed.snapshots()) {
    const auto own = made_of.find(snapshot.shard());
    const bool is_ours = own != made_of.end() && snapshot.first_slot() == own->second->first_slot() &&
                         snapshot.last_slot() == own->second->last_slot() &&
                         snapshot.name().starts_with(SnapshotNamePrefix(store_id, snapshot.shard()));
    if (is_ours && !made.contains(snapshot.name()) && ++kept[snapshot.shard()] >= keep) older.push_back(snapshot);
  }
  return older;
}

int DeleteOlder(const Options& options, const Console& console, const std::set<std::string>& made,
                const std::string& store_id) {
  adminpb::ListSnapshotsResponse listed;
  int code = AskAdmin<adminpb::ListSnapshotsRequest, adminpb::ListSnapshotsResponse>(options.common, console, {},
                                                                                     &Stub::ListSnapshots, listed);
  if (code != kOk) return code;
  for (const std::string& name : made) {
    const auto is_it = [&name](const adminpb::Snapshot& snapshot) { return snapshot.name() == name; };
    if (std::any_of(listed.snapshots().begin(), listed.snapshots().end(), is_it)) continue;
    console.Error(StrCat("the retriever does not list ", name, ", which was just made: nothing deleted. Has it the ",
                         "--snapshot-dir of the shards?"));
    return kFailed;
  }
  for (const adminpb::Snapshot& snapshot : OlderThanKept(listed, made, store_id, *options.keep)) {
    if (code = Delete(options, console, snapshot.name()); code != kOk) return code;
    console.out << (options.common.json ? StrCat("{\"deleted\":", MessageToJson(snapshot), "}")
                                        : StrCat("deleted ", OneLine(snapshot.name())))
                << '\n';
  }
  return kOk;
}

int RunCreate(const Options& options, const Console& console) {
  std::string store_id;
  std::vector<uint32_t> shards;
  if (const int code = FindShards(options, console, store_id, shards); code != kOk) return code;
  std::set<std::string> made;
  for (const uint32_t shard : shards) {
    adminpb::CreateSnapshotRequest request;
    request.set_shard(shard);
    adminpb::CreateSnapshotResponse response;
    int code = AskAdmin<adminpb::CreateSnapshotRequest, adminpb::CreateSnapshotResponse>(
        options.common, console, request, &Stub::CreateSnapshot, response);
    if (code == kOk) code = WaitForOperation(options.common, console, response.operation().operation_id());
    if (code != kOk) return code;
    console.out << (options.common.json ? MessageToJson(response) : response.name()) << '\n';
    made.insert(response.name());
  }
  return options.keep.has_value() ? DeleteOlder(options, console, made, store_id) : kOk;
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
    if (const int code = Delete(options, console, name); code != kOk) return code;
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
  create
      ->add_option("--keep", options->keep,
                   "Once all are made, delete what is older than the N newest of each of these shards")
      ->type_name("N")
      ->check(CLI::Range(uint32_t{1}, std::numeric_limits<uint32_t>::max()));
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
