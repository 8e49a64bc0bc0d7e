// Squared distances between a query and vectors as they are stored, in half precision.
#pragma once

#include <span>
#include <string_view>

namespace retro {

// |query - vector|^2, where `vector` holds query.size() half-precision numbers. Their values are exact; sums are in
// single precision, in an order that the length alone decides: a pair's result is the same whatever else is computed
// with it.
float SquaredDistance(std::span<const float> query, std::string_view vector);

}  // namespace retro
