// Some of the documents of a segment, by their numbers in it: a bit each. Of 1 M documents that is 125 KB, which is
// joined with another in some µs and asked for a document in one ns; a compressed set would be smaller, and slower at
// what a search does with it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace retro {

class DocumentSet {
 public:
  // Of none of so many documents.
  explicit DocumentSet(uint32_t documents) : documents_(documents), words_((documents + kBits - 1) / kBits) {}

  uint32_t documents() const { return documents_; }  // that there are, whether in it or not
  uint32_t count() const {
    uint32_t count = 0;
    for (const uint64_t word : words_) count += static_cast<uint32_t>(std::popcount(word));
    return count;
  }
  bool Contains(uint32_t document) const { return (words_[document / kBits] >> document % kBits & 1) != 0; }
  void Add(uint32_t document) { words_[document / kBits] |= uint64_t{1} << document % kBits; }

  // With or of another set of the same documents.
  void Unite(const DocumentSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  void Intersect(const DocumentSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
  }
  void Complement() {
    for (uint64_t& word : words_) word = ~word;
    if (documents_ % kBits != 0) words_.back() &= (uint64_t{1} << documents_ % kBits) - 1;
  }

  // Calls visit(document) in order, until it returns false or at the end.
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      for (uint64_t word = words_[i]; word != 0; word &= word - 1) {
        if (!visit(static_cast<uint32_t>(i * kBits + std::countr_zero(word)))) return;
      }
    }
  }

 private:
  static constexpr uint32_t kBits = 64;

  const uint32_t documents_;
  std::vector<uint64_t> words_;
};

}  // namespace retro
