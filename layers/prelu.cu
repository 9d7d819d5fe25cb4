// PReLU. x, y and their diffs are (images, channels, inner).

extern "C" __global__ void prelu_forward(
    const int n, const Dtype* x, const Dtype* slopes, const int channels, const int inner, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    y[i] = x[i] > 0 ? x[i] : slopes[i / inner % channels] * x[i];
  }
}

extern "C" __global__ void prelu_backward(
    const int n, const Dtype* x, const Dtype* dy, const Dtype* slopes, const int channels, const int inner,
    Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    dx[i] = dy[i] * (x[i] > 0 ? Dtype(1) : slopes[i / inner % channels]);
  }
}

// One thread per element of an image: its part of the gradient of the slope, summed over the images.
extern "C" __global__ void prelu_sum_over_images(
    const int n, const Dtype* x, const Dtype* dy, const int images, Dtype* sums) {
  CUDA_KERNEL_LOOP(i, n) {
    Dtype total = 0;
    for (int j = i; j < n * images; j += n) {
      total += x[j] > 0 ? Dtype(0) : x[j] * dy[j];
    }
    sums[i] = total;
  }
}
