// Short names of the generated namespaces, as used throughout.
#pragma once

namespace retro::retriever::v1 {}
namespace retro::shard::v1 {}

namespace retro {

namespace pb = ::retro::retriever::v1;   // documents, chunks, filters, the retriever's own messages
namespace shardpb = ::retro::shard::v1;  // between router and shard, and on disk

}  // namespace retro
