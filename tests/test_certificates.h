// Certificates for one test: an authority, and what it signs for 127.0.0.1.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <chrono>
#include <memory>
#include <string>

namespace retro {

// PEM texts.
struct TestIdentity {
  std::string certificate;
  std::string key;
};

class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name);

  std::string certificate() const;
  // A certificate for 127.0.0.1 that ends in `valid` from now, which may be in the past.
  TestIdentity Sign(const std::string& name, std::chrono::seconds valid = std::chrono::hours(1)) const;

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::shared_ptr<X509> certificate_;
};

}  // namespace retro
