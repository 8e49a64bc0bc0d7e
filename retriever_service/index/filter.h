// Conditions on documents (filter.proto), checked once and then evaluated for many.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/document/protos.h"
#include "retriever_service/index/indexed_document.h"
#include "retro/retriever/v1/filter.pb.h"

namespace retro {

inline constexpr int kFilterDepthMax = 16;
inline constexpr int kFilterSizeMax = 4096;  // nodes and values

// Immutable; any number of threads may evaluate one.
class CompiledFilter {
 public:
  // INVALID_ARGUMENT names the wrong part by its path from `field`, as "filter.all_of.filters[2].range".
  static absl::StatusOr<CompiledFilter> Compile(const pb::Filter& filter, std::string_view field);

  CompiledFilter(CompiledFilter&&) noexcept;
  CompiledFilter& operator=(CompiledFilter&&) noexcept;
  ~CompiledFilter();

  bool Matches(const IndexedDocument& document) const;

  struct Node;  // see filter_tree.h
  const Node& root() const { return *root_; }

 private:
  explicit CompiledFilter(std::unique_ptr<const Node> root);
  std::unique_ptr<const Node> root_;
};

}  // namespace retro
