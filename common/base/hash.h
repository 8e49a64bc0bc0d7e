// The hashes that are written to disk and sent over the wire; none may ever change.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace retro {

// SHA-256. Fingerprints of files and content: equal hash = equal bytes.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::string_view bytes);
  // Update with the length first, so that ("ab","c") and ("a","bc") differ.
  void UpdateField(std::string_view bytes);
  // The 32 raw bytes. Call once.
  std::string Finish();

 private:
  void* context_;  // EVP_MD_CTX, owned
};

std::string Sha256Bytes(std::string_view bytes);  // 32 raw bytes
std::string HexEncode(std::string_view bytes);    // lower case

// XXH3, 64 bits: tells damage, not malice.
uint64_t Checksum(std::string_view bytes);

// A small file that tells whether it is whole: the checksum of its content (8 bytes, little-endian), its content.
std::string WithChecksum(std::string_view content);
// The content again; nothing if it is damaged.
std::optional<std::string_view> ContentOf(std::string_view bytes);

// The slot of a document, 0 ... kSlotCount-1: XXH64 of its id with seed 0, modulo the count.
inline constexpr uint32_t kSlotCount = 4096;
uint32_t SlotOfDocument(std::string_view document_id);

}  // namespace retro
