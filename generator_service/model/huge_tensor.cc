#include "generator_service/model/huge_tensor.h"

#include <cstdlib>
#include <new>

#include "common/base/huge_pages.h"

namespace retro {

at::Tensor EmptyInHugePages(at::IntArrayRef shape, at::ScalarType type) {
  const size_t bytes = static_cast<size_t>(c10::multiply_integers(shape)) * at::elementSize(type);
  void* const memory = AllocateInHugePages(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return at::from_blob(
      memory, shape, [](void* owned) { std::free(owned); }, at::TensorOptions().dtype(type));
}

}  // namespace retro
