// A parser of outside bytes under hostile ones. With clang (RETRO_FUZZ=ON) libFuzzer drives it; with any compiler
// driver.cc does, with inputs that are the same each time, so that every build runs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace retro {

// What must never happen; prints `what` and aborts, so that the input is kept.
void Require(bool holds, const char* what);

// Good inputs to begin with.
std::vector<std::string> FuzzSeeds();

// One input.
void FuzzOne(std::string_view input);

}  // namespace retro
