// Reads another program's config: typed fields with defaults, and what was asked for by nobody.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace retro {

// The config object of a JSON file, alone or under "config". INVALID_ARGUMENT naming the file.
absl::StatusOr<nlohmann::ordered_json> ReadConfigFile(const std::string& path);

// Errors stick: the first one is kept in status() and later reads give the defaults.
class ForeignConfig {
 public:
  // `fields`: an object that outlives this. `what` names it in messages.
  ForeignConfig(const nlohmann::ordered_json& fields, std::string what) : fields_(fields), what_(std::move(what)) {}

  // Whether there is a value; null is none.
  bool Has(const std::string& key) const;

  // Integers are sizes and ids, of at most 2^24.
  int64_t Integer(const std::string& key);  // required
  int64_t Integer(const std::string& key, int64_t otherwise);
  double Number(const std::string& key, double otherwise);
  bool Flag(const std::string& key, bool otherwise);
  std::string Text(const std::string& key, const std::string& otherwise);
  std::vector<int64_t> Integers(const std::string& key, const std::vector<int64_t>& otherwise);

  // Keys that say nothing about the model's form.
  void Ignore(std::initializer_list<const char*> keys);
  // A feature that no model here has: its key must be absent, null, false or 0.
  void Refuse(std::initializer_list<const char*> keys);
  // Notes the first error.
  void Fail(std::string_view why);

  // Keys that nobody asked for, those that begin with '_' (notes of whoever wrote the file) left out.
  std::vector<std::string> UnusedKeys() const;
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::ordered_json* Find(const std::string& key);

  const nlohmann::ordered_json& fields_;
  std::string what_;
  std::set<std::string> used_;
  absl::Status status_;
};

}  // namespace retro
