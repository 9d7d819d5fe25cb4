// TanH, one thread per element. The forward pass is one expression in tanh.py.

extern "C" __global__ void tanh_backward(const int n, const Dtype* y, const Dtype* dy, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    dx[i] = dy[i] * (1 - y[i] * y[i]);
  }
}
