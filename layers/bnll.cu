// BNLL, one thread per element.

extern "C" __global__ void bnll_forward(const int n, const Dtype* x, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype positive = x[i] < 0 ? Dtype(0) : x[i];  // a NaN stays one
    y[i] = positive + log1p(exp(-abs(x[i])));
  }
}

extern "C" __global__ void bnll_backward(const int n, const Dtype* x, const Dtype* dy, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    dx[i] = dy[i] / (1 + exp(-x[i]));
  }
}
