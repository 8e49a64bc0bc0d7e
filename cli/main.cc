// retro: the command line of both services. Commands are in files of their names.
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <iostream>
#include <string>
#include <vector>

#include "cli/app.h"
#include "cli/interrupt.h"

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);  // a stream of documents on standard input is read in large pieces
  // What the libraries log, failed calls say too, in our words.
  gpr_set_log_function([](gpr_log_func_args*) {});
  google::protobuf::SetLogHandler(nullptr);
  retro::cli::HandleInterruptSignals();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const int code = retro::cli::RunCommandLine(arguments, retro::cli::Console::OfProcess());
  std::cout.flush();
  return code;
}
