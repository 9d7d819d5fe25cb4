// BatchNorm, one thread per element of an (outer, channels, inner) array.

extern "C" __global__ void batch_norm_forward(
    const int n, const Dtype* x, const Dtype* mean, const Dtype* deviation, const int channels, const int inner,
    Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const int c = i / inner % channels;
    y[i] = (x[i] - mean[c]) / deviation[c];
  }
}

// dx may be dy: each thread reads what it overwrites.
extern "C" __global__ void batch_norm_backward(
    const int n, const Dtype* dy, const Dtype* x, const Dtype* mean, const Dtype* mean_dy, const Dtype* slope,
    const Dtype* inverse, const int channels, const int inner, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const int c = i / inner % channels;
    dx[i] = (dy[i] - mean_dy[c] - (x[i] - mean[c]) * slope[c]) * inverse[c];
  }
}
