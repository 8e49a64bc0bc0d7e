// TLS of servers and clients, from PEM files that are read again when they change: new connections use what the files
// held when they were last whole and fitted together, those that exist go on until they end (see
// ServerOptions.connection_age_max).
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace retro {

// A server's. Without a certificate the port is plaintext.
struct ServerTls {
  std::string certificate;  // file: its own and the chain above
  std::string key;          // file
  std::string client_ca;    // file: mutual TLS, clients must show a certificate that these have signed
  bool enabled() const { return !certificate.empty(); }
};

// INVALID_ARGUMENT that names the flag and the file: one without the other, no PEM, key and certificate that do not
// belong together, a certificate that has expired. Errors of ReadFile.
absl::Status CheckServerTls(const ServerTls& tls);

// `tls` was checked. Fails if its files are not as they were then, or no file in memory can be made.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const ServerTls& tls);

// Until when the first certificate of a text of PEM is valid, which errors call `name`.
absl::StatusOr<std::chrono::system_clock::time_point> CertificateExpiry(const std::string& pem,
                                                                        const std::string& name);
// The same of the certificate that new connections to a server are shown, whatever its file holds by now.
absl::StatusOr<std::chrono::system_clock::time_point> ServedCertificateExpiry(const ServerTls& tls);

// A client's.
struct ClientSecurity {
  std::string ca;            // file: TLS, and who may have signed the server's certificate; "" is plaintext
  std::string certificate;   // file: for mutual TLS
  std::string key;           // file
  std::string api_key_file;  // read again when it changes; "" for none
  std::string api_key;       // in place of a file
  bool allow_plaintext_key_beyond_loopback = false;  // else an API key goes over TLS or stays on this machine
};

// A channel to `target` that sends the API key with each call, and asks a silent connection every 30 s whether its peer
// is alive: a machine that is gone says nothing. A name is looked up again once a second while none of its addresses
// answers. Connecting is left to the calls. INVALID_ARGUMENT as CheckServerTls, or for a key that would leave the
// machine in plaintext. `flag_prefix` names flags in errors: "" for --tls-ca, "retriever-" for --retriever-tls-ca.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& target, const ClientSecurity& security,
                                                           grpc::ChannelArguments arguments,
                                                           const std::string& flag_prefix = "");

}  // namespace retro
