// A port of this machine that nobody listens at, nor will by chance before it is used: each process has ports of its
// own to try, below those that the kernel gives to connections and to who asks for any.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace retro {

inline constexpr int kPortsFirst = 10'000, kPortsOfAProcess = 50, kPortsProcesses = 440;

// The first port of those that are this process's for as long as it lives: it holds a name that only one can hold.
inline int OwnPorts() {
  for (int i = 0; i < kPortsProcesses; ++i) {
    const int number = (getpid() + i) % kPortsProcesses;
    const std::string name = "retro-ports-" + std::to_string(number);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());  // behind a zero: a name, and no file
    const int holder = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    if (bind(holder, reinterpret_cast<sockaddr*>(&address), size) == 0) return kPortsFirst + number * kPortsOfAProcess;
    close(holder);
  }
  ADD_FAILURE() << "other processes have all ports for tests";
  return kPortsFirst;
}

// One thread. tests/e2e/harness.py deals them out alike.
inline uint16_t FreePort() {
  static const int first = OwnPorts();
  static int tried = 0;
  for (int i = 0; i < kPortsOfAProcess; ++i) {
    const auto port = static_cast<uint16_t>(first + tried++ % kPortsOfAProcess);
    const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    const bool is_free = bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(descriptor);
    if (is_free) return port;
  }
  ADD_FAILURE() << "all ports of this process are taken";
  return 0;
}

}  // namespace retro
