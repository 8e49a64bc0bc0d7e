#include "cli/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <thread>

#include "common/base/sync.h"

namespace retro::cli {
namespace {

struct State {
  Mutex mutex;
  CondVar changed;
  bool interrupted ABSL_GUARDED_BY(mutex) = false;
  std::set<grpc::ClientContext*> contexts ABSL_GUARDED_BY(mutex);
};

State& TheState() {
  static State& state = *new State;  // never destroyed: the signal thread may outlive main
  return state;
}

int signal_pipe[2] = {-1, -1};

// A signal handler may not lock: it wakes a thread that may.
void OnSignal(int) {
  const char byte = 0;
  [[maybe_unused]] const ssize_t ignored = write(signal_pipe[1], &byte, 1);
}

void AwaitSignal() {
  char byte = 0;
  while (read(signal_pipe[0], &byte, 1) != 1) {
  }
  Interrupt();
}

}  // namespace

void HandleInterruptSignals() {
  if (pipe2(signal_pipe, O_CLOEXEC) != 0) return;  // Ctrl-C then ends the process at once, as without us
  std::thread(AwaitSignal).detach();
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void Interrupt() {
  State& state = TheState();
  MutexLock lock(state.mutex);
  state.interrupted = true;
  for (grpc::ClientContext* context : state.contexts) context->TryCancel();
  state.changed.NotifyAll();
}

bool Interrupted() {
  State& state = TheState();
  MutexLock lock(state.mutex);
  return state.interrupted;
}

void ResetInterrupt() {
  State& state = TheState();
  MutexLock lock(state.mutex);
  state.interrupted = false;
}

bool SleepUnlessInterrupted(std::chrono::milliseconds duration) {
  const auto deadline = std::chrono::steady_clock::now() + duration;
  State& state = TheState();
  MutexLock lock(state.mutex);
  while (!state.interrupted && state.changed.WaitUntil(state.mutex, deadline)) {
  }
  return state.interrupted;
}

CancelOnInterrupt::CancelOnInterrupt(grpc::ClientContext& context) : context_(context) {
  State& state = TheState();
  MutexLock lock(state.mutex);
  state.contexts.insert(&context_);
  if (state.interrupted) context_.TryCancel();
}

CancelOnInterrupt::~CancelOnInterrupt() {
  State& state = TheState();
  MutexLock lock(state.mutex);
  state.contexts.erase(&context_);
}

}  // namespace retro::cli
