// Products with packed weights against fp64, at shapes that leave every kind of rest, and their promise that a row's
// result is the same in any company.
#include "generator_service/model/packed_matrix.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <iostream>
#include <vector>

#include "gtest/gtest.h"

namespace retro {
namespace {

constexpr int64_t kSeed = 11;

struct Shape {
  int64_t outputs, inputs;
};
const std::vector<Shape> kShapes = {{1, 1}, {16, 4}, {17, 7}, {64, 255}, {70, 256}, {130, 257}, {257, 1031}};
const std::vector<int64_t> kRows = {1, 2, 3, 4, 5, 6, 7, 8, 13, 64};

PackedMatrix Pack(const at::Tensor& weight, MatrixFormat format) {
  return {
      {weight.const_data_ptr<float>(), static_cast<size_t>(weight.numel())}, weight.size(0), weight.size(1), format};
}

at::Tensor Multiply(const PackedMatrix& matrix, const at::Tensor& x, InstructionSet instructions = BestInstructions()) {
  const at::Tensor y = at::full({x.size(0), matrix.outputs()}, 1e30, at::kFloat);
  matrix.Multiply(x.const_data_ptr<float>(), x.size(0), y.data_ptr<float>(), instructions);
  return y;
}

// What the format keeps of a weight, by its own definition, in fp64.
at::Tensor Kept(const at::Tensor& weight, MatrixFormat format) {
  if (format == MatrixFormat::kFp32) return weight.to(at::kDouble);
  if (format == MatrixFormat::kFp16) return weight.to(at::kHalf).to(at::kDouble);
  const at::Tensor scale = weight.abs().amax(1, /*keepdim=*/true) / 127;
  return ((weight / scale).round() * scale).to(at::kDouble);
}

// What a product takes of the activations, in fp64: int8 takes whole parts of the row's largest.
at::Tensor Taken(const at::Tensor& x, MatrixFormat format) {
  if (format != MatrixFormat::kInt8) return x.to(at::kDouble);
  const at::Tensor scale = x.abs().amax(1, /*keepdim=*/true) / ByteRows::kLargest;
  return (x.to(at::kDouble) * (1 / scale).to(at::kDouble)).round() * scale.to(at::kDouble);
}

class PackedMatrixTest : public testing::TestWithParam<MatrixFormat> {
 protected:
  void SetUp() override {
    at::manual_seed(kSeed);
    at::set_num_threads(2);
  }
};

TEST_P(PackedMatrixTest, ProductsEqualFp64) {
  double worst = 0;
  for (const auto& [outputs, inputs] : kShapes) {
    const at::Tensor weight = at::randn({outputs, inputs});
    const PackedMatrix matrix = Pack(weight, GetParam());
    const at::Tensor exact = Kept(weight, GetParam());
    for (const int64_t rows : kRows) {
      const at::Tensor x = at::randn({rows, inputs});
      const at::Tensor taken = Taken(x, GetParam());
      EXPECT_LE((taken - x).abs().max().item<double>(), 0.51 / ByteRows::kLargest * x.abs().max().item<double>());
      const at::Tensor expected = at::matmul(taken, exact.t());
      // Relative to the terms' size: sums may cancel.
      const at::Tensor size = at::matmul(x.to(at::kDouble).abs(), exact.abs().t()) + 1e-30;
      const at::Tensor product = Multiply(matrix, x, InstructionSet::kBase);
      const double error = ((product.to(at::kDouble) - expected).abs() / size).max().item<double>();
      worst = std::max(worst, error);
      EXPECT_LE(error, 2e-6) << outputs << " x " << inputs << ", " << rows << " rows";
      // Other processors' instructions give the same to the bit; here, as far as this one has them.
      EXPECT_TRUE(at::equal(Multiply(matrix, x, BestInstructions()), product));
    }
  }
  std::cout << "worst relative error " << worst << "\n";
}

TEST_P(PackedMatrixTest, RowsReadBackAreThoseThatMultiply) {
  for (const auto& [outputs, inputs] : kShapes) {
    const at::Tensor weight = at::randn({outputs, inputs});
    const PackedMatrix matrix = Pack(weight, GetParam());
    const at::Tensor rows = at::empty({outputs, inputs});
    for (int64_t i = 0; i < outputs; ++i) matrix.ReadRow(i, rows.data_ptr<float>() + i * inputs);
    EXPECT_LE((rows.to(at::kDouble) - Kept(weight, GetParam())).abs().max().item<double>(), 1e-6);
  }
}

TEST_P(PackedMatrixTest, ARowIsTheSameInAnyCompany) {
  for (const auto& [outputs, inputs] : kShapes) {
    const PackedMatrix matrix = Pack(at::randn({outputs, inputs}), GetParam());
    const at::Tensor x = at::randn({64, inputs});
    const at::Tensor together = Multiply(matrix, x);
    for (const int64_t rows : kRows) {
      for (const int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        EXPECT_TRUE(at::equal(Multiply(matrix, x.narrow(0, 0, rows)), together.narrow(0, 0, rows)))
            << outputs << " x " << inputs << ", " << rows << " rows, " << threads << " threads";
      }
    }
  }
}

TEST_P(PackedMatrixTest, ARowOfZerosStays) {
  const at::Tensor weight = at::zeros({5, 9});
  const PackedMatrix matrix = Pack(weight, GetParam());
  EXPECT_TRUE(at::equal(Multiply(matrix, at::randn({3, 9})), at::zeros({3, 5})));
}

INSTANTIATE_TEST_SUITE_P(Formats, PackedMatrixTest,
                         testing::Values(MatrixFormat::kFp32, MatrixFormat::kFp16, MatrixFormat::kInt8),
                         [](const auto& info) {
                           return info.param == MatrixFormat::kFp32   ? "fp32"
                                  : info.param == MatrixFormat::kFp16 ? "fp16"
                                                                      : "int8";
                         });

}  // namespace
}  // namespace retro
