#include "trainer/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace retro {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RecomputeFunction : public torch::autograd::Function<RecomputeFunction> {
 public:
  // A TensorList, for tensors in a vector would not be seen as inputs.
  static at::Tensor forward(AutogradContext* context, const TensorFunction& function, at::TensorList inputs) {
    context->save_for_backward(inputs.vec());
    context->saved_data["function"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(function));
    const at::NoGradGuard no_grad;
    return function(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    variable_list detached;
    variable_list wanted;
    for (const at::Tensor& saved : context->get_saved_variables()) {
      at::Tensor& own = detached.emplace_back(saved.detach());
      if (!saved.requires_grad()) continue;
      own.requires_grad_(true);
      wanted.push_back(own);
    }
    variable_list found;
    {
      const at::AutoGradMode grad(true);
      const auto holder = context->saved_data["function"].toCapsule();
      const at::Tensor output = static_cast<Holder&>(*holder).function(detached);
      found = torch::autograd::grad({output}, wanted, gradients, /*retain_graph=*/std::nullopt, /*create_graph=*/false,
                                    /*allow_unused=*/true);
    }
    variable_list result = {at::Tensor()};  // of the function
    result.reserve(detached.size() + 1);
    size_t next = 0;
    for (const at::Tensor& own : detached) result.push_back(own.requires_grad() ? found[next++] : at::Tensor());
    return result;
  }

 private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(TensorFunction held) : function(std::move(held)) {}
    TensorFunction function;
  };
};

}  // namespace

at::Tensor RecomputeTensors(const TensorFunction& function, const std::vector<at::Tensor>& inputs) {
  return RecomputeFunction::apply(function, at::TensorList(inputs));
}

}  // namespace retro
