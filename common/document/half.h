// Vectors in half precision (IEEE 754 binary16, little-endian, 2 bytes a number): as stored, and as sent to shards.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace retro {

inline constexpr size_t kHalfBytes = 2;

// Rounds to nearest even. Numbers beyond 65,504 become infinite: check with AllFinite.
std::string ToHalf(std::span<const float> values);

// Exact. `halves` must hold exactly values.size() numbers.
void FromHalf(std::string_view halves, std::span<float> values);

// False if any number is infinite or NaN.
bool AllFinite(std::string_view halves);

}  // namespace retro
