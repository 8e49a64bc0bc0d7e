#include "common/base/hash.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <cstdlib>
#include <cstring>

namespace retro {
namespace {

EVP_MD_CTX* Context(void* context) { return static_cast<EVP_MD_CTX*>(context); }

void CheckOpenSsl(int ok) {
  if (ok != 1) std::abort();  // only out of memory, or an OpenSSL without SHA-256
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  CheckOpenSsl(EVP_DigestInit_ex(Context(context_), EVP_sha256(), nullptr));
}

Sha256::~Sha256() { EVP_MD_CTX_free(Context(context_)); }

void Sha256::Update(std::string_view bytes) {
  CheckOpenSsl(EVP_DigestUpdate(Context(context_), bytes.data(), bytes.size()));
}

void Sha256::UpdateField(std::string_view bytes) {
  const uint64_t n = bytes.size();
  char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(n >> (8 * i));
  Update({length, sizeof length});
  Update(bytes);
}

std::string Sha256::Finish() {
  std::string digest(32, '\0');
  CheckOpenSsl(EVP_DigestFinal_ex(Context(context_), reinterpret_cast<unsigned char*>(digest.data()), nullptr));
  return digest;
}

std::string Sha256Bytes(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

std::string HexEncode(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const unsigned char b : bytes) {
    hex += kDigits[b >> 4];
    hex += kDigits[b & 15];
  }
  return hex;
}

uint64_t Checksum(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string WithChecksum(std::string_view content) {
  const uint64_t checksum = Checksum(content);
  std::string bytes(sizeof checksum, '\0');
  std::memcpy(bytes.data(), &checksum, sizeof checksum);
  return bytes.append(content);
}

std::optional<std::string_view> ContentOf(std::string_view bytes) {
  uint64_t checksum = 0;
  if (bytes.size() < sizeof checksum) return std::nullopt;
  std::memcpy(&checksum, bytes.data(), sizeof checksum);
  const std::string_view content = bytes.substr(sizeof checksum);
  if (Checksum(content) != checksum) return std::nullopt;
  return content;
}

uint32_t SlotOfDocument(std::string_view document_id) {
  return static_cast<uint32_t>(XXH64(document_id.data(), document_id.size(), 0) % kSlotCount);
}

}  // namespace retro
