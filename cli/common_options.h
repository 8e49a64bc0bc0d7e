// Options that commands share.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "CLI/App.hpp"
#include "CLI/Validators.hpp"
#include "absl/status/statusor.h"
#include "cli/console.h"
#include "common/rpc/credentials.h"
#include "grpcpp/channel.h"

namespace retro::cli {

inline constexpr char kDefaultRetriever[] = "127.0.0.1:7700";
inline constexpr char kDefaultGenerator[] = "127.0.0.1:7800";

// Longest message accepted: a document of 8 MiB with its facts, or 256 neighbours with theirs.
inline constexpr int kMessageBytesMax = 64 << 20;

struct CommonOptions {
  std::string retriever = kDefaultRetriever;
  std::string generator = kDefaultGenerator;
  std::string collection;  // "" is the default one
  ClientSecurity security;
  double timeout_s = 60;  // of a call; of a stream, without any answer
  bool json = false;
  // Made at the end of the parse, to the services that the command calls.
  std::shared_ptr<grpc::Channel> retriever_channel;
  std::shared_ptr<grpc::Channel> generator_channel;
};

// Which of the options a command has; --timeout and --json all have.
struct CommonOptionSet {
  bool retriever = true;
  bool generator = false;
  bool collection = true;
};

// Adds them; `options` must outlive the parse.
void AddCommonOptions(CLI::App& command, CommonOptions& options, CommonOptionSet which = {});

// Adds --encoding and --repair (see ReaderOptions), for commands that read files.
void AddEncodingOptions(CLI::App& command, std::string& encoding, bool& repair);

// Puts the options of `command` that have no heading in its help yet under one.
void GroupOptions(CLI::App& command, const std::string& heading);

// For numbers without an upper bound of ours; the library's own check of this kind says so with 600 digits.
CLI::Validator AboveZero();

// The text that an argument stands for: itself, or all of standard input for "-". INVALID_ARGUMENT, which calls it
// `name`, if it is empty or too long to be sent.
absl::StatusOr<std::string> TextArgument(const std::string& argument, std::string_view name, const Console& console);

}  // namespace retro::cli
