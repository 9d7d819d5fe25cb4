// What InnerProduct does to its product as it leaves the GEMM, one thread per element of y.

extern "C" __global__ void inner_product_epilogue(
    const int n, const int columns, const Dtype* bias, const int has_bias, const int relu, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype value = has_bias ? y[i] + bias[i % columns] : y[i];
    y[i] = relu && value <= 0 ? Dtype(0) : value;  // a NaN stays
  }
}
