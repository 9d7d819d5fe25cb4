// Swish, one thread per element.

extern "C" __global__ void swish_forward(const int n, const Dtype* x, const Dtype beta, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    y[i] = x[i] / (1 + exp(-(beta * x[i])));
  }
}

extern "C" __global__ void swish_backward(
    const int n, const Dtype* x, const Dtype* dy, const Dtype beta, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype scaled = beta * x[i];
    const Dtype s = 1 / (1 + exp(-scaled));
    dx[i] = dy[i] * (scaled * s + s * (1 - scaled * s));
  }
}
