// retro health: whether the services can take requests, by the names under which they say so.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "fmt/format.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

using ::grpc::health::v1::Health;
using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;

constexpr char kFooter[] = R"(
Examples:
  retro health                    both services
  retro health retriever          one of them
  retro health --json

Exit code 0 if all names that a service knows are SERVING, 1 if one is not, 3 if a service cannot be reached.)";

// What a service's health names mean; "" is liveness.
struct HealthName {
  std::string name;
  std::string meaning;
};

const std::vector<HealthName>& NamesOf(const Peer& peer) {
  static const auto& retriever = *new std::vector<HealthName>{
      {"", "is alive"},
      {"retro.retriever.v1.RetrieverService", "embeds, and a shard answers"},
      {"full_coverage", "all shards answer"},
  };
  static const auto& generator = *new std::vector<HealthName>{
      {"", "is alive"},
      {"retro.generator.v1.GeneratorService", "its model is loaded"},
      {"retrieval", "its retriever answers"},
  };
  return peer.name == "retriever" ? retriever : generator;
}

struct Options {
  CommonOptions common;
  std::string which = "all";
};

void Print(const Peer& peer, const HealthName& name, const std::string& state, bool json, const Console& console) {
  if (json) {
    const nlohmann::ordered_json line = {
        {"service", peer.name}, {"address", peer.address}, {"name", name.name}, {"state", state}};
    console.out << line.dump() << '\n';
  } else {
    console.out << fmt::format("{:<10} {:<30} {}\n", peer.name, name.meaning, state);
  }
}

int CheckPeer(const Peer& peer, const Options& options, const Console& console) {
  const std::unique_ptr<Health::Stub> stub = Health::NewStub(peer.channel);
  int code = kOk;
  for (const HealthName& name : NamesOf(peer)) {
    HealthCheckRequest request;
    request.set_service(name.name);
    HealthCheckResponse response;
    Call call(options.common.timeout_s);
    const grpc::Status status = stub->Check(call.context(), request, &response);
    if (status.error_code() == grpc::StatusCode::NOT_FOUND) continue;  // a server without that name
    if (!status.ok()) {
      Print(peer, name, IsUnreachable(status) ? "UNREACHABLE" : "ERROR", options.common.json, console);
      return ReportFailure(console, peer, status);
    }
    Print(peer, name, HealthCheckResponse::ServingStatus_Name(response.status()), options.common.json, console);
    if (response.status() != HealthCheckResponse::SERVING) code = kFailed;
  }
  return code;
}

int RunHealth(const Options& options, const Console& console) {
  int code = kOk;
  if (options.which != "generator") code = CheckPeer(RetrieverPeer(options.common), options, console);
  if (options.which != "retriever") code = std::max(code, CheckPeer(GeneratorPeer(options.common), options, console));
  return code;
}

}  // namespace

void AddHealthCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("health", "Ask whether the services can take requests");
  command->footer(kFooter);
  command->add_option("service", options->which, "retriever, generator or all")
      ->check(CLI::IsMember({"retriever", "generator", "all"}))
      ->capture_default_str();
  AddCommonOptions(*command, options->common, {.retriever = true, .generator = true, .collection = false});
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunHealth(*options, invocation.console); };
  });
}

}  // namespace retro::cli
