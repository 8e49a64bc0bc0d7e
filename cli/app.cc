#include "cli/app.h"

#include <algorithm>
#include <exception>
#include <sstream>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/utf8.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr char kPathType[] = "PATH";  // type names of options
constexpr char kFileType[] = "FILE";

constexpr char kFooter[] = R"(
In a hurry:
  retro ingest ~/notes docs.jsonl.gz       put documents in
  retro search "how are chunks found"      look for the nearest chunks
  retro generate "The first settlers"      write on, with neighbours fetched for every 64 tokens
  retro score --file book.txt              bits a byte that the model needs for it
  retro COMMAND --help                     options and examples of one command

Exit codes: 0 done, 1 refused by the server, or part of the work failed or was skipped, 2 the command line is wrong,
3 a service cannot be reached, 130 interrupted. Results go to standard output, everything else to standard error.)";

void AddCommands(CLI::App& app, Invocation& invocation) {
  AddIngestCommand(app, invocation);
  AddSearchCommand(app, invocation);
  AddGenerateCommand(app, invocation);
  AddScoreCommand(app, invocation);
  AddGetCommand(app, invocation);
  AddListCommand(app, invocation);
  AddDeleteCommand(app, invocation);
  AddCollectionsCommand(app, invocation);
  AddExportCommand(app, invocation);
  AddStatsCommand(app, invocation);
  AddHealthCommand(app, invocation);
  AddDoctorCommand(app, invocation);
  AddAdminCommand(app, invocation);
  AddSnapshotCommand(app, invocation);
}

// Messages carry UTF-8 alone. Paths may be anything: commands say what they do with others.
void CheckEncoding(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_type_name() == kPathType || option->get_type_name() == kFileType) continue;
    for (const std::string& value : option->results()) {
      if (ValidUtf8Prefix(value) == value.size()) continue;
      throw CLI::ValidationError(option->get_name(), StrCat("'", RepairedUtf8(value), "' is no UTF-8: convert it"));
    }
  }
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& arguments, const Console& console) {
  CLI::App app("Documents in, nearest chunks and retrieval-conditioned text out.", "retro");
  Invocation invocation{console, nullptr};
  try {  // CLI11 tells everything by exceptions
    app.set_version_flag("--version", RETRO_VERSION, "Print the version and exit");
    app.require_subcommand(1);
    app.footer(kFooter);
    app.get_formatter()->column_width(32);
    AddCommands(app, invocation);
    if (arguments.empty()) {
      console.err << app.help();
      return kUsage;
    }
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    for (const CLI::App* command : app.get_subcommands()) CheckEncoding(*command);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {  // --help and --version
      std::ostringstream ignored;
      return app.exit(error, console.out, ignored) == 0 ? kOk : kUsage;
    }
    console.Error(StrCat(error.what(), " (see retro --help, or retro COMMAND --help)"));
    return kUsage;
  } catch (const std::exception& error) {
    console.Error(error.what());
    return kUsage;
  }
  const int code = invocation.run();
  console.out.flush();
  if (console.out || code != kOk) return code;
  console.Error("cannot write all of the standard output: is the disk full, or the reader gone?");
  return kFailed;
}

}  // namespace retro::cli
