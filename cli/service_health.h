// What the services say of themselves through grpc.health.v1.
#pragma once

#include <string>
#include <vector>

#include "cli/connection.h"

namespace retro::cli {

// A name that a service knows; "" is liveness.
struct HealthName {
  std::string name;
  std::string meaning;
};

// Of the retriever or the generator, by the peer's name.
const std::vector<HealthName>& HealthNamesOf(const Peer& peer);

// `state` is SERVING, NOT_SERVING or SERVICE_UNKNOWN if OK; NOT_FOUND from a server without that name.
grpc::Status AskHealth(const Peer& peer, const HealthName& name, double timeout_s, std::string& state);

}  // namespace retro::cli
