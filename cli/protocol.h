// The generated code that commands speak, under the short names that they use for it.
#pragma once

#include "retro/generator/v1/generator.grpc.pb.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro::cli {

namespace pb = ::retro::retriever::v1;
namespace gen = ::retro::generator::v1;

}  // namespace retro::cli
