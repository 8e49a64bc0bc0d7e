// Options that commands share.
#pragma once

#include <string>

#include "CLI/App.hpp"
#include "CLI/Validators.hpp"

namespace retro::cli {

inline constexpr char kDefaultRetriever[] = "127.0.0.1:7700";
inline constexpr char kDefaultGenerator[] = "127.0.0.1:7800";

struct CommonOptions {
  std::string retriever = kDefaultRetriever;
  std::string generator = kDefaultGenerator;
  std::string collection;  // "" is the default one
  double timeout_s = 60;   // of a call; of a stream, without any answer
  bool json = false;
};

// Which of the options a command has; --timeout and --json all have.
struct CommonOptionSet {
  bool retriever = true;
  bool generator = false;
  bool collection = true;
};

// Adds them; `options` must outlive the parse.
void AddCommonOptions(CLI::App& command, CommonOptions& options, CommonOptionSet which = {});

// For numbers without an upper bound of ours; the library's own check of this kind says so with 600 digits.
CLI::Validator AboveZero();

}  // namespace retro::cli
