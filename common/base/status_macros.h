// Early return for absl::Status and absl::StatusOr.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function if `expr` is not OK.
#define RETRO_RETURN_IF_ERROR(expr)                                                    \
  do {                                                                                 \
    if (::absl::Status retro_status = (expr); !retro_status.ok()) return retro_status; \
  } while (false)

#define RETRO_CONCAT_INNER(a, b) a##b
#define RETRO_CONCAT(a, b) RETRO_CONCAT_INNER(a, b)

// RETRO_ASSIGN_OR_RETURN(auto x, F()): declares or assigns x from the value of F(), or returns its status.
#define RETRO_ASSIGN_OR_RETURN(lhs, expr) RETRO_ASSIGN_OR_RETURN_INNER(RETRO_CONCAT(retro_or_, __LINE__), lhs, expr)
#define RETRO_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = *std::move(tmp)
