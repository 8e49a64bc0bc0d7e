#include "retriever_service/embed/packed_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace retro {
namespace {

// Operators that the library registers without declaring them in a header.
using PackFp16 = c10::intrusive_ptr<LinearPackedParamsBase>(at::Tensor, std::optional<at::Tensor>);
using ReorderFp32 = at::Tensor(const at::Tensor&, std::optional<int64_t>);
using LinearFp32 = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, c10::string_view,
                              c10::List<std::optional<at::Scalar>>, std::optional<c10::string_view>);

template <typename Signature>
c10::TypedOperatorHandle<Signature> FindOperator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

PackedLinear::PackedLinear(const at::Tensor& weight, WeightFormat format) {
  if (format == WeightFormat::kFp16Packed) {
    static const auto pack = FindOperator<PackFp16>("quantized::linear_prepack_fp16");
    fp16_ = pack.call(weight, std::nullopt);
  } else {
    static const auto reorder = FindOperator<ReorderFp32>("mkldnn::_reorder_linear_weight");
    fp32_ = reorder.call(weight, std::nullopt);
  }
}

at::Tensor PackedLinear::Apply(const at::Tensor& x) const {
  if (fp16_) return fp16_->apply_dynamic(x);
  static const auto linear = FindOperator<LinearFp32>("mkldnn::_linear_pointwise");
  return linear.call(x, fp32_, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace retro
