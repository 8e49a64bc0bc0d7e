// Whole commands in the test's process, against fake services and in a folder of their own.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cli/app.h"
#include "cli/console.h"
#include "cli/interrupt.h"
#include "common/base/strings.h"
#include "tests/call_order.h"
#include "tests/fake_services.h"

namespace retro::cli {

namespace fs = std::filesystem;

struct Result {
  int code = 0;
  std::string out;
  std::string err;
};

class CliTest : public testing::Test {
 protected:
  CliTest() : folder_(fs::temp_directory_path() / StrCat("cli_test_", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~CliTest() override {
    ResetInterrupt();
    fs::remove_all(folder_);
  }

  // Runs a command against the fake services.
  Result Run(std::vector<std::string> arguments, const std::string& input = "", bool terminal = false) {
    const bool asks_generator = arguments[0] == "generate" || arguments[0] == "score";
    if (!asks_generator) arguments.push_back("--retriever=" + server_.address());
    if (asks_generator || arguments[0] == "health" || arguments[0] == "doctor")
      arguments.push_back("--generator=" + server_.address());
    return RunAsIs(arguments, input, terminal);
  }
  static Result RunAsIs(const std::vector<std::string>& arguments, const std::string& input = "",
                        bool terminal = false) {
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    Console console{in, out, err};
    console.in_terminal = console.out_terminal = console.err_terminal = terminal;
    BeforeCalls();
    const int code = RunCommandLine(arguments, console);
    AfterCalls();
    return {code, out.str(), err.str()};
  }
  std::string Put(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return (folder_ / name).string();
  }
  // A JSONL file of documents d0, d1, ...
  std::string PutDocuments(const std::string& name, int count) {
    std::string lines;
    for (int i = 0; i < count; ++i) lines += StrCat("{\"id\":\"d", i, "\",\"text\":\"text ", i, "\"}\n");
    return Put(name, lines);
  }

  const fs::path folder_;
  FakeServer server_;
  FakeRetriever& retriever_ = server_.retriever;
  FakeGenerator& generator_ = server_.generator;
};

}  // namespace retro::cli
