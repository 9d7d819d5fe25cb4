// Sigmoid, one thread per element.

extern "C" __global__ void sigmoid_forward(const int n, const Dtype* x, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    y[i] = 1 / (1 + exp(-x[i]));
  }
}

extern "C" __global__ void sigmoid_backward(const int n, const Dtype* y, const Dtype* dy, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    dx[i] = dy[i] * y[i] * (1 - y[i]);
  }
}
