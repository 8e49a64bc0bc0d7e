// Defaults and bounds of the retriever's requests, as retriever.proto states them. A shard holds to them too: it need
// not be a router that asks it.
#pragma once

#include <google/protobuf/repeated_field.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace retro {

inline constexpr int kQueriesMax = 256;
inline constexpr int kExcludedPerQueryMax = 256;
inline constexpr int kExcludedMax = 1024;          // for all queries
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
inline constexpr std::chrono::milliseconds kShortWait{50};  // that any read may take for what its token covers

// Of a search.
absl::Status CheckQueryCount(int count);

// Ids that no document can have are wrong, and would cost memory for nothing.
absl::Status CheckIds(const std::string& field, const google::protobuf::RepeatedPtrField<std::string>& ids,
                      int count_max);

}  // namespace retro
