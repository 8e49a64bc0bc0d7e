#include "cli/common_options.h"

#include <cstdlib>
#include <istream>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/utf8.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr double kTimeoutMin_s = 0.001;
constexpr double kTimeoutMax_s = 86400;
constexpr size_t kTextBytesMax = 16 << 20;

// gRPC takes nearly everything for an address, a port of 99999 too.
CLI::Validator Address() {
  return {[](std::string& text) -> std::string {
            for (const std::string_view scheme : {"dns:", "unix:", "ipv4:", "ipv6:"}) {
              if (std::string_view(text).starts_with(scheme)) return "";
            }
            const size_t colon = text.rfind(':');
            int port = 0;
            const bool right = colon != std::string::npos && colon > 0 &&
                               CLI::detail::lexical_cast(text.substr(colon + 1), port) && port >= 1 && port <= 65535;
            return right ? "" : StrCat("'", text, "' is no address: write HOST:PORT, as 127.0.0.1:7700");
          },
          ""};
}

constexpr int kReconnectPauseMin_ms = 100;
constexpr int kReconnectPauseMax_ms = 2000;
constexpr int kConnectWait_ms = 10'000;  // for a service that is busy or far away to take a connection

std::shared_ptr<grpc::Channel> OpenChannel(const std::string& address, const ClientSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetUserAgentPrefix("retro");
  // Retries of ours must find a service that has come back; the library's own pauses grow to two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectPauseMin_ms);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectWait_ms);  // what its name hides: the least wait
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectPauseMax_ms);
  auto channel = MakeChannel(address, security, arguments);
  if (!channel.ok()) throw CLI::ValidationError(std::string(channel.status().message()));  // told as usage errors are
  return *std::move(channel);
}

void AddSecurityOptions(CLI::App& command, ClientSecurity& security) {
  constexpr char kGroup[] = "Security";
  const auto add_file = [&](const char* flag, const char* variable, std::string& path, const char* help) {
    command.add_option(flag, path, help)->envname(variable)->type_name("FILE")->group(kGroup);
  };
  add_file("--tls-ca", "RETRO_TLS_CA", security.ca, "TLS: who may have signed the service's certificate (PEM)");
  add_file("--tls-certificate", "RETRO_TLS_CERTIFICATE", security.certificate, "Mutual TLS: our certificate (PEM)");
  add_file("--tls-key", "RETRO_TLS_KEY", security.key, "Its private key (PEM)");
  add_file("--api-key-file", "RETRO_API_KEY_FILE", security.api_key_file,
           "File that holds the API key; or set RETRO_API_KEY to the key itself");
  command
      .add_flag("--insecure-send-key-in-plaintext", security.allow_plaintext_key_beyond_loopback,
                "Send the API key without TLS to other machines")
      ->group(kGroup);
}

void OpenChannels(CommonOptions& options, const CommonOptionSet& which) {
  const char* key = std::getenv("RETRO_API_KEY");
  if (key != nullptr) options.security.api_key = key;
  if (which.retriever) options.retriever_channel = OpenChannel(options.retriever, options.security);
  if (which.generator) options.generator_channel = OpenChannel(options.generator, options.security);
}

}  // namespace

void AddCommonOptions(CLI::App& command, CommonOptions& options, CommonOptionSet which) {
  constexpr char kGroup[] = "Common options";
  if (which.retriever) {
    command.add_option("--retriever", options.retriever, "Address of the retriever")
        ->envname("RETRO_RETRIEVER")
        ->type_name("ADDR")
        ->check(Address())
        ->capture_default_str()
        ->group(kGroup);
  }
  if (which.generator) {
    command.add_option("--generator", options.generator, "Address of the generator")
        ->envname("RETRO_GENERATOR")
        ->type_name("ADDR")
        ->check(Address())
        ->capture_default_str()
        ->group(kGroup);
  }
  if (which.collection) {
    command.add_option("--collection", options.collection, "Collection; without it, the default one")
        ->type_name("NAME")
        ->group(kGroup);
  }
  command.add_option("--timeout", options.timeout_s, "Longest wait for an answer in seconds")
      ->type_name("S")
      ->check(CLI::Range(kTimeoutMin_s, kTimeoutMax_s))
      ->capture_default_str()
      ->group(kGroup);
  command.add_flag("--json", options.json, "Print JSON, one object a line")->group(kGroup);
  AddSecurityOptions(command, options.security);
  command.parse_complete_callback([&options, which] { OpenChannels(options, which); });
}

void AddEncodingOptions(CLI::App& command, std::string& encoding, bool& repair) {
  command.add_option("--encoding", encoding, "Of all files, as latin-1 (default UTF-8, or what HTML says)")
      ->type_name("NAME");
  command.add_flag("--repair", repair, "Replace what is no character, instead of skipping the document");
}

void GroupOptions(CLI::App& command, const std::string& heading) {
  constexpr char kUngrouped[] = "Options";
  for (CLI::Option* option : command.get_options()) {
    const bool stays = option == command.get_help_ptr() || option->get_positional();
    if (!stays && option->get_group() == kUngrouped) option->group(heading);
  }
}

CLI::Validator AboveZero() {
  return {[](std::string& text) -> std::string {
            double value = 0;
            if (CLI::detail::lexical_cast(text, value) && value > 0) return "";
            return StrCat("must be a number above 0, is ", text);
          },
          "ABOVE 0"};
}

absl::StatusOr<std::string> TextArgument(const std::string& argument, std::string_view name, const Console& console) {
  std::string text = argument;
  if (text == "-") {
    text.resize(kTextBytesMax + 1);
    console.in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(console.in.gcount()));
    if (text.size() > kTextBytesMax) {
      return absl::InvalidArgumentError(StrCat("the ", name, " is longer than 16 MiB: shorten it"));
    }
    if (text.ends_with('\n')) text.pop_back();  // the file's, not the text's
  }
  if (text.empty()) return absl::InvalidArgumentError(StrCat("the ", name, " is empty: write something"));
  if (const size_t valid = ValidUtf8Prefix(text); valid != text.size()) {
    return absl::InvalidArgumentError(StrCat("the ", name, " is no UTF-8 at byte ", valid, ": convert it first"));
  }
  return text;
}

}  // namespace retro::cli
