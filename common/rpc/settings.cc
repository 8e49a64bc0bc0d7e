#include "common/rpc/settings.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <regex>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

// What a file or the environment may set; not what a person asks of the program on the spot.
bool IsSetting(const CLI::Option& option) {
  if (option.get_lnames().empty()) return false;
  const std::string& name = option.get_lnames().front();
  return name != "help" && name != "version" && name != "config" && name != "check-config";
}

// What Kubernetes sets in every pod for a service whose name begins like ours, `name` being the rest of the variable's:
// RETRO_RETRIEVER_SERVICE_HOST, RETRO_RETRIEVER_PORT_7700_TCP_ADDR and so on. No setting's name is like one of these.
bool IsOfKubernetes(const std::string& name) {
  static const std::regex form(
      "(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)");
  return std::regex_match(name, form);
}

// A misspelt setting must not be passed over in silence: it may be the one that closes the door.
absl::Status CheckEnvironment(const CLI::App& app, const std::string& env_prefix) {
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const std::string name(text.substr(0, text.find('=')));
    if (!name.starts_with(env_prefix) || IsOfKubernetes(name.substr(env_prefix.size()))) continue;
    const auto options = app.get_options();
    const bool known = std::ranges::any_of(
        options, [&name](const CLI::Option* option) { return IsSetting(*option) && option->get_envname() == name; });
    if (!known) {
      return absl::InvalidArgumentError(
          StrCat("the environment variable ", name, " is no setting: --help has those that there are"));
    }
  }
  return absl::OkStatus();
}

// A value that is missing must not be passed over either: a variable that is empty in a script leaves "--flag=", for
// whose value CLI11 would take the next flag.
absl::Status CheckValue(const std::string& setting, std::string_view value) {
  if (!value.empty() && !value.starts_with("--")) return absl::OkStatus();
  return FieldError(setting, StrCat("\"", value, "\" is no value: give one, or leave the setting out"));
}

// The flags, and behind them what the environment sets besides: CLI11 alone would let the file win over that.
absl::StatusOr<std::vector<std::string>> Arguments(const CLI::App& app, std::span<char*> argv) {
  std::vector<std::string> arguments;
  std::set<const CLI::Option*> given;
  for (size_t i = 1; i < argv.size(); ++i) {
    const std::string_view argument = arguments.emplace_back(argv[i]);
    const size_t sign = argument.find('=');
    const std::string name(argument.substr(0, sign));
    const CLI::Option* const option = name.starts_with("--") ? app.get_option_no_throw(name) : nullptr;
    given.insert(option);
    if (option == nullptr) continue;
    if (option->get_items_expected_max() == 0 && sign == std::string_view::npos) continue;  // it needs none
    const bool is_next = sign == std::string_view::npos;
    const std::string value(is_next ? i + 1 < argv.size() ? argv[i + 1] : "" : argument.substr(sign + 1));
    RETRO_RETURN_IF_ERROR(CheckValue(name, value));
    if (is_next) arguments.emplace_back(argv[++i]);
  }
  for (const CLI::Option* option : app.get_options()) {
    const char* const value = IsSetting(*option) ? std::getenv(option->get_envname().c_str()) : nullptr;
    if (value == nullptr || given.contains(option)) continue;
    RETRO_RETURN_IF_ERROR(CheckValue(option->get_envname(), value));
    arguments.push_back(StrCat("--", option->get_lnames().front(), "=", value));
  }
  return arguments;
}

// CLI11 alone takes an empty value of a flag for "true".
class SettingsFile final : public CLI::ConfigTOML {
 public:
  std::string to_flag(const CLI::ConfigItem& item) const override {
    const std::string value = CLI::ConfigTOML::to_flag(item);
    if (value.empty())
      throw CLI::ConversionError(item.fullname() + " has no value: give one, or leave the setting out");
    return value;
  }
};

absl::Status CheckFileValues(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (!IsSetting(*option)) continue;
    for (const std::string& value : option->results()) RETRO_RETURN_IF_ERROR(CheckValue(option->get_name(), value));
  }
  return absl::OkStatus();
}

void AddSecuritySettings(CLI::App& app, ServiceSettings& settings) {
  constexpr char kSecurity[] = "Security";
  app.add_option("--tls-certificate", settings.server.tls.certificate,
                 "Serve TLS with this certificate chain (PEM; read again when it changes)")
      ->group(kSecurity);
  app.add_option("--tls-key", settings.server.tls.key, "Its private key (PEM)")->group(kSecurity);
  app.add_option("--tls-client-ca", settings.server.tls.client_ca,
                 "Mutual TLS: take only clients whose certificate these authorities have signed (PEM)")
      ->group(kSecurity);
  app.add_option("--api-keys", settings.api_keys,
                 "Take only calls with one of the API keys that this file has hashes of (read again when it changes)")
      ->group(kSecurity);
  app.add_option("--streams-per-connection-max", settings.server.streams_per_connection_max,
                 "Calls at once on one connection")
      ->check(CLI::Range(1, 65'536))
      ->capture_default_str()
      ->group(kSecurity);
  app.add_option("--connection-age-ms-max", settings.server.connection_age_max,
                 "Close a connection at this age, once its calls have ended")
      ->check(CLI::Range(int64_t{100}, int64_t{86'400'000}))
      ->default_str(std::to_string(settings.server.connection_age_max.count()))
      ->group(kSecurity);
}

}  // namespace

void AddClientSettings(CLI::App& app, const std::string& peer, ClientSecurity& security) {
  const std::string group = "Security of calls to the " + peer;
  app.add_option("--" + peer + "-tls-ca", security.ca, "TLS: who may have signed its certificate (PEM)")->group(group);
  app.add_option("--" + peer + "-tls-certificate", security.certificate, "Mutual TLS: our certificate chain (PEM)")
      ->group(group);
  app.add_option("--" + peer + "-tls-key", security.key, "Its private key (PEM)")->group(group);
  app.add_option("--" + peer + "-api-key-file", security.api_key_file, "File that holds our API key")->group(group);
}

absl::Status CheckServiceSettings(const ServiceSettings& settings) {
  RETRO_RETURN_IF_ERROR(CheckListenAddress(settings.server));
  RETRO_RETURN_IF_ERROR(CheckServerTls(settings.server.tls));
  return settings.api_keys.empty() ? absl::OkStatus() : AccessControl::Check(settings.api_keys);
}

void AddServiceSettings(CLI::App& app, ServiceSettings& settings) {
  app.set_config("--config", "", "Read settings from this file (key = value, keys are the flags without dashes)");
  app.config_formatter(std::make_shared<SettingsFile>());
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_flag("--check-config", settings.check_config,
               "Check the settings and the files that they name, print what is in force and end (a model's weights and "
               "a store are not read)");
  app.set_version_flag("--version", RETRO_VERSION);
  app.get_formatter()->column_width(44);
  constexpr char kServing[] = "Serving";
  app.add_option("--listen", settings.server.listen, "Address of the gRPC port")
      ->capture_default_str()
      ->group(kServing);
  app.add_flag("--allow-plaintext-beyond-loopback", settings.server.allow_plaintext_beyond_loopback,
               "Serve plaintext on an address that other machines reach, API keys included")
      ->default_str("false")
      ->group(kServing);
  app.add_option("--health-listen", settings.server.health_listen,
                 "Address of a second port that serves grpc.health.v1 alone")
      ->group(kServing);
  app.add_option("--metrics-listen", settings.metrics_listen,
                 "Address of the Prometheus port (GET /metrics); default none")
      ->group(kServing);
  app.add_flag("--reflection,!--no-reflection", settings.server.reflection, "Serve gRPC reflection")
      ->default_str("true")
      ->group(kServing);
  app.add_option("--drain-ms-max", settings.server.drain_max, "On SIGTERM, cut calls that last longer than this")
      ->check(CLI::Range(int64_t{0}, int64_t{86'400'000}))
      ->default_str(std::to_string(settings.server.drain_max.count()))
      ->group(kServing);
  AddSecuritySettings(app, settings);
  app.add_option("--log-level", settings.log.level, "trace, debug, info, warning or error")
      ->capture_default_str()
      ->group("Logs");
  app.add_option("--log-format", settings.log.format, "text or json")->capture_default_str()->group("Logs");
}

std::optional<int> ReadSettings(CLI::App& app, const std::string& env_prefix, const ServiceSettings& settings, int argc,
                                char** argv, const std::function<absl::Status()>& check) {
  for (CLI::Option* option : app.get_options()) {
    if (!IsSetting(*option)) continue;
    std::string name = env_prefix + option->get_lnames().front();
    for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    option->envname(name);
  }
  absl::Status status;
  try {
    absl::StatusOr<std::vector<std::string>> arguments = Arguments(app, std::span(argv, argc));
    status = arguments.status();
    if (status.ok()) {
      std::ranges::reverse(*arguments);  // as CLI11 wants them
      app.parse(*std::move(arguments));
    }
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "%s: %s (see --help)\n", app.get_name().c_str(), e.what());
    return 2;
  }
  if (status.ok()) status = CheckEnvironment(app, env_prefix);
  if (status.ok()) status = CheckFileValues(app);
  if (status.ok()) status = CheckServiceSettings(settings);
  if (status.ok()) status = check();
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), std::string(status.message()).c_str());
    return 2;
  }
  if (settings.check_config) {
    std::fputs(EffectiveSettings(app).c_str(), stdout);
    return 0;
  }
  return std::nullopt;
}

std::string EffectiveSettings(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : app.get_options()) {
    if (!IsSetting(*option)) continue;
    std::string value = option->get_default_str();
    if (option->count() > 0) {
      value.clear();
      for (const std::string& part : option->results()) value += (value.empty() ? "" : " ") + part;
    }
    text += option->get_lnames().front() + " = " + value + "\n";
  }
  return text;
}

void LogSettings(const CLI::App& app) {
  std::string line = EffectiveSettings(app);
  for (char& c : line) c = c == '\n' ? ';' : c;
  LogEvent(spdlog::level::info, "starting", {{"settings", line}});
}

}  // namespace retro
