// ReLU, one thread per element.

extern "C" __global__ void relu_forward(const int n, const Dtype* x, const Dtype slope, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype rest = slope == 0 && x[i] <= 0 ? Dtype(0) : slope * x[i];  // 0 * NaN is still a NaN
    y[i] = x[i] > 0 ? x[i] : rest;
  }
}

extern "C" __global__ void relu_backward(
    const int n, const Dtype* x, const Dtype* dy, const Dtype slope, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    dx[i] = dy[i] * (x[i] > 0 ? Dtype(1) : slope);
  }
}
