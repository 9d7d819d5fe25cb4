// What is left to do on a convolution's products: bias and ReLU in one pass.

extern "C" __global__ void convolution_epilogue(
    const int n, const int positions, const int channels, const Dtype* bias, const int has_bias, const int clip,
    Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype value = has_bias ? y[i] + bias[i / positions % channels] : y[i];
    y[i] = clip && value < 0 ? Dtype(0) : value;
  }
}
