// In place of a fuzzing engine where there is none: the inputs that are named, and mutations of them with fixed seeds.
//   NAME_inputs MUTATIONS FILE...
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

// A few bytes changed, taken out or doubled.
std::string Mutated(std::string input, std::mt19937& random) {
  for (unsigned changes = 1 + random() % 4; changes > 0 && !input.empty(); --changes) {
    const size_t at = random() % input.size();
    const size_t length = 1 + random() % 8;
    switch (random() % 4) {
      case 0:
        input[at] = static_cast<char>(random());
        break;
      case 1:
        input.erase(at, length);
        break;
      case 2:
        input.insert(at, input.substr(at, length));
        break;
      default:
        input[at] = "0123456789[]{}\",:-.e"[random() % 20];
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  const int mutations = argc > 1 ? std::stoi(argv[1]) : 0;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::string input((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!file || input.empty()) {
      std::cerr << argv[i] << " cannot be read\n";
      return 1;
    }
    Run(input);
    std::mt19937 random(static_cast<unsigned>(i));
    for (int m = 0; m < mutations; ++m) Run(Mutated(input, random));
  }
  std::cout << argc - 2 << " inputs, seeds from 2, " << mutations << " mutations each\n";
  return argc > 2 ? 0 : 1;
}
