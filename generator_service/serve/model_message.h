// GetModel's reply.
#pragma once

#include <string>
#include <vector>

#include "generator_service/serve/served_model.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

generator::v1::GetModelResponse ModelMessage(const ServedModel& model, const std::vector<std::string>& warnings);

}  // namespace retro
