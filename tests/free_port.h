// A port of this machine that nobody listens at, nor will by chance before it is used: each process has ports of its
// own to try, below those that the kernel gives to connections and to who asks for any.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>

namespace retro {

// One thread. tests/e2e/harness.py deals them out alike.
inline uint16_t FreePort() {
  constexpr int kFirst = 10'000, kOfAProcess = 50, kProcesses = 440;
  static int tried = 0;
  for (int i = 0; i < kOfAProcess; ++i) {
    const auto port = static_cast<uint16_t>(kFirst + getpid() % kProcesses * kOfAProcess + tried++ % kOfAProcess);
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
