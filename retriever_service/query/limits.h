// Defaults and bounds of the retriever's requests, as retriever.proto states them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace retro {

inline constexpr int kQueriesMax = 256;
inline constexpr uint32_t kNeighboursDefault = 2;  // paper, section 2.4
inline constexpr uint32_t kNeighboursMax = 1000;
inline constexpr float kEffortDefault = 0.5f;
inline constexpr size_t kQueryTextBytesMax = 64 << 10;
inline constexpr int kEmbedTextsMax = 1024;
inline constexpr int kEmbedTextsUrgentMax = 32;  // an Embed of more waits behind searches
inline constexpr int kWritesMax = 256;
inline constexpr int kDeleteIdsMax = 10'000;
inline constexpr uint32_t kPageSizeDefault = 100;
inline constexpr uint32_t kPageSizeMax = 1000;
inline constexpr uint32_t kChunksMax = 1024;
inline constexpr std::chrono::milliseconds kMaxWaitDefault{1000};
inline constexpr std::chrono::milliseconds kMaxWaitMax{60'000};

}  // namespace retro
