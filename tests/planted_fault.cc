// A fault of each kind that the sanitizers must find, with all the libraries loaded that are not compiled with them: a
// check of the set-up, in builds with sanitizers alone.
//   planted_fault race|overflow|leak|undefined
#include <iostream>
#include <limits>
#include <memory>
#include <string_view>
#include <thread>

#include "tests/tiny_served_model.h"

namespace retro {
namespace {

void Race(int64_t value) {
  std::thread other([&value] { ++value; });
  ++value;
  other.join();
  std::cout << value << "\n";
}

void Overflow(int64_t size) {
  const auto values = std::make_unique<int64_t[]>(size);
  std::cout << values[size] << "\n";
}

// Nothing holds its address once the thread is gone.
void Leak(int64_t size) {
  std::thread([size] { std::cout << *new int64_t(size) << "\n"; }).join();
}

void Undefined(int64_t value) { std::cout << std::numeric_limits<int64_t>::max() + value << "\n"; }

}  // namespace
}  // namespace retro

int main(int /*argc*/, char** argv) {
  const retro::ServedModel served = retro::TinyServedModel();  // torch, gRPC and all
  const int64_t layers = served.config().layers;               // at least 1, which the compiler does not know
  const std::string_view fault = argv[1];
  if (fault == "race") retro::Race(layers);
  if (fault == "overflow") retro::Overflow(layers);
  if (fault == "leak") retro::Leak(layers);
  if (fault == "undefined") retro::Undefined(layers);
}
