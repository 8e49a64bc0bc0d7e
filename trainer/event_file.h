// Scalars as TensorBoard reads them: a file of framed protocol buffers (TFRecord: length, CRC-32C of the length, bytes,
// CRC-32C of the bytes; the checksums rotated and shifted), each a tensorflow.Event. The few fields that a scalar needs
// are written out here, so that the trainer depends on no protobuf.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retro {

inline constexpr char kEventFileName[] = "events.out.tfevents.0.retro";

// What an event file begins with.
std::string EventFileHead(double wall_time_s);

// One event: the values of several scalars at a step.
std::string ScalarEvent(double wall_time_s, int64_t step,
                        const std::vector<std::pair<std::string_view, double>>& scalars);

uint32_t Crc32c(std::string_view bytes);

}  // namespace retro
