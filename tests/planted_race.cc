// A race that the thread sanitizer must find, with all the libraries loaded whose own accesses it is told to ignore: a
// check of the set-up, in builds with -fsanitize=thread alone.
#include <iostream>
#include <thread>

#include "tests/tiny_served_model.h"

int main() {
  const retro::ServedModel served = retro::TinyServedModel();  // torch, gRPC and all
  int64_t unguarded = served.config().layers;
  std::thread other([&unguarded] { ++unguarded; });
  ++unguarded;
  other.join();
  std::cout << unguarded << "\n";
}
