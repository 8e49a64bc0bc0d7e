// Random numbers that depend on a seed and a counter alone, so that a sampled run can be repeated, resumed elsewhere
// and batched with others without changing. Source: Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3".
#pragma once

#include <array>
#include <cstdint>

namespace retro {

// Ten rounds of Philox on a 128-bit counter with a 64-bit key.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1), 53 bits, for the `index`-th draw under `seed`.
double UniformAt(uint64_t seed, uint64_t index);

}  // namespace retro
