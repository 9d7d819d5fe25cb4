// ELU, one thread per element.

extern "C" __global__ void elu_forward(const int n, const Dtype* x, const Dtype alpha, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    y[i] = x[i] > 0 ? x[i] : alpha * (exp(x[i]) - 1);
  }
}

extern "C" __global__ void elu_backward(
    const int n, const Dtype* x, const Dtype* y, const Dtype* dy, const Dtype alpha, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    dx[i] = dy[i] * (x[i] > 0 ? Dtype(1) : alpha + y[i]);
  }
}
