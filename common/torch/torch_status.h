// Where torch's exceptions become statuses.
#pragma once

#include <ATen/ATen.h>

#include <new>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/strings.h"

namespace retro {

// What `function` returns (a Status or StatusOr), or for an exception of torch's: RESOURCE_EXHAUSTED if memory ran out,
// else INTERNAL with torch's own words.
template <typename Function>
std::invoke_result_t<Function> CatchTorch(Function&& function) {
  try {
    return function();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(StrCat("out of device memory: ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const c10::Error& error) {
    return absl::InternalError(StrCat("torch: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(StrCat("torch: ", error.what()));
  }
}

}  // namespace retro
