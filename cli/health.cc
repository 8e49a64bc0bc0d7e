// retro health: whether the services can take requests, by the names under which they say so.
#include <algorithm>
#include <memory>
#include <string>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/service_health.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

constexpr char kFooter[] = R"(
Examples:
  retro health                    both services
  retro health retriever          one of them
  retro health --json

Exit code 0 if all names that a service knows are SERVING, 1 if one is not, 3 if a service cannot be reached.)";

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
  int code = kOk;
  for (const HealthName& name : HealthNamesOf(peer)) {
    std::string state;
    const grpc::Status status = AskHealth(peer, name, options.common.timeout_s, state);
    if (status.error_code() == grpc::StatusCode::NOT_FOUND) continue;  // a server without that name
    if (!status.ok()) {
      Print(peer, name, IsUnreachable(status) ? "UNREACHABLE" : "ERROR", options.common.json, console);
      return ReportFailure(console, peer, status);
    }
    Print(peer, name, state, options.common.json, console);
    if (state != "SERVING") code = kFailed;
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
