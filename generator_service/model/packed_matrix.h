// A weight matrix [out, in] packed once for products on the CPU: fp32; fp16, half the memory and so twice the speed of
// one token; or int8 with one scale an output, a quarter. Activations are fp32; int8's products round them to 14 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generator_service/model/matrix_kernels.h"

namespace retro {

// Immutable after construction: any thread.
class PackedMatrix {
 public:
  // weight: [outputs, inputs], fp32. int8: w = scale * q, q in -127 ... 127, scale = max |w| / 127 of each output.
  // Packing is shared out over the calling thread's workers.
  PackedMatrix(std::span<const float> weight, int64_t outputs, int64_t inputs, MatrixFormat format);

  // y [rows, outputs] = x [rows, inputs] W^T, shared out over the calling thread's workers (compute_team.h).
  void Multiply(const float* x, int64_t rows, float* y, InstructionSet instructions = BestInstructions()) const;

  // Row `output` of the matrix, inputs() values: an embedding and its readout are one matrix.
  void ReadRow(int64_t output, float* to) const;

  MatrixFormat format() const { return format_; }
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(char* memory) const;
  };

  // zeros: [inputs], for outputs past the last.
  void PackPanel(std::span<const float> weight, std::span<const float> zeros, int64_t panel);
  char* Panel(int64_t panel) const { return memory_.get() + panel * panel_bytes_; }

  MatrixFormat format_;
  int64_t outputs_, inputs_;
  int64_t depth_;   // inputs, int8: rounded up
  int64_t panels_;  // of kPanelOutputs, the last one filled up with zeros
  int64_t panel_bytes_;
  size_t bytes_;
  std::unique_ptr<char, Free> memory_;
  std::vector<float> scales_;  // int8: [panels * kPanelOutputs]
};

}  // namespace retro
