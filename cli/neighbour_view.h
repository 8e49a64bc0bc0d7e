// How people see a neighbour.
#pragma once

#include <string>

#include "cli/console.h"
#include "retro/retriever/v1/document.pb.h"

namespace retro::cli {

// "title (source, chunk 3)", with the id where there is no title; cut to `columns`.
std::string NeighbourName(const ::retro::retriever::v1::Neighbour& neighbour, size_t columns);

// A head line with rank, distance and name, and the chunk's text wrapped; its continuation dimmed behind. Ends with a
// line break.
std::string NeighbourBlock(size_t rank, const ::retro::retriever::v1::Neighbour& neighbour, const Style& style,
                           int width);

// The same in one line, the text shortened.
std::string NeighbourLine(size_t rank, const ::retro::retriever::v1::Neighbour& neighbour, int width);

}  // namespace retro::cli
