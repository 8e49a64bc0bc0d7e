#include "cli/neighbour_view.h"

#include <algorithm>

#include "cli/protocol.h"
#include "common/base/strings.h"
#include "fmt/format.h"

namespace retro::cli {
namespace {

constexpr size_t kIndent = 5;
constexpr size_t kNameColumns = 36;

size_t Room(int width, size_t taken) {
  const auto columns = static_cast<size_t>(std::max(width, 0));
  return columns > taken + 20 ? columns - taken : 20;
}

}  // namespace

std::string NeighbourName(const pb::Neighbour& neighbour, size_t columns) {
  const std::string& title = neighbour.title().empty() ? neighbour.document_id() : neighbour.title();
  const std::string& source = neighbour.source();
  const std::string place = source.empty() || source == title ? "" : StrCat(source, ", ");
  return Shorten(StrCat(title, " (", place, "chunk ", neighbour.chunk().chunk_number(), ")"), columns);
}

std::string NeighbourBlock(size_t rank, const pb::Neighbour& neighbour, const Style& style, int width) {
  std::string block =
      fmt::format("{:3}  {}{}{}  distance {:.4f}\n", rank, style.bold,
                  NeighbourName(neighbour, Room(width, kIndent + 20)), style.reset, neighbour.distance());
  block += Wrap(neighbour.chunk().text(), kIndent, static_cast<size_t>(width));
  if (neighbour.has_continuation()) {
    block += StrCat(style.dim, Wrap(neighbour.continuation().text(), kIndent, static_cast<size_t>(width)), style.reset);
  }
  return block;
}

std::string NeighbourLine(size_t rank, const pb::Neighbour& neighbour, int width) {
  const std::string head =
      fmt::format("  {}. {:.3f} {}: ", rank, neighbour.distance(), NeighbourName(neighbour, kNameColumns));
  return head + Shorten(neighbour.chunk().text(), Room(width, head.size()));
}

}  // namespace retro::cli
