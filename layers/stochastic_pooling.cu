// Stochastic pooling without padding, one thread per element of the array it writes. The draw adds and compares in
// the order of the CPU, without a product in the sums: both draw the same.

struct Window {
  int h0, h1, w0, w1;
  const Dtype* plane;
};

__device__ inline Window window_of(
    int index, const Dtype* x, int height, int width, int windows_h, int windows_w, int kernel_h, int kernel_w,
    int stride_h, int stride_w) {
  const int h0 = index / windows_w % windows_h * stride_h, w0 = index % windows_w * stride_w;
  return {h0, min(h0 + kernel_h, height), w0, min(w0 + kernel_w, width),
          x + (long long)(index / windows_w / windows_h) * height * width};
}

// The key's two words are unsigned; they arrive as int, bit for bit.
extern "C" __global__ void stochastic_draw(
    const int n, const Dtype* x, const int key0, const int key1, const int height, const int width,
    const int windows_h, const int windows_w, const int kernel_h, const int kernel_w, const int stride_h,
    const int stride_w, Dtype* y, int* mask) {
  CUDA_KERNEL_LOOP(i, n) {
    const Window at = window_of(
        i, x, height, width, windows_h, windows_w, kernel_h, kernel_w, stride_h, stride_w);
    Dtype total = 0, running = 0;
    for (int h = at.h0; h < at.h1; ++h)
      for (int w = at.w0; w < at.w1; ++w) total += at.plane[h * width + w];
    unsigned int words[4] = {(unsigned int)i / 4, 0, 0, 0};
    philox4x32(words, (unsigned int)key0, (unsigned int)key1);
    const unsigned int low = i % 2 ? words[1] : words[0], high = i % 2 ? words[3] : words[2];  // stay in registers
    const Dtype u = Dtype(((i % 4 < 2 ? low : high) >> 8) + 1) * Dtype(1.0 / 16777216);
    const Dtype threshold = u * total;
    Dtype value = total == total ? Dtype(0) : total;
    int drawn = -1;
    for (int h = at.h0; h < at.h1 && drawn < 0; ++h)
      for (int w = at.w0; w < at.w1 && drawn < 0; ++w) {
        running += at.plane[h * width + w];
        if (running >= threshold) value = at.plane[drawn = h * width + w];
      }
    y[i] = value;
    mask[i] = drawn;
  }
}

extern "C" __global__ void stochastic_mean(
    const int n, const Dtype* x, const int height, const int width, const int windows_h, const int windows_w,
    const int kernel_h, const int kernel_w, const int stride_h, const int stride_w, Dtype* y, Dtype* sums) {
  CUDA_KERNEL_LOOP(i, n) {
    const Window at = window_of(
        i, x, height, width, windows_h, windows_w, kernel_h, kernel_w, stride_h, stride_w);
    Dtype total = 0, squares = 0;
    for (int h = at.h0; h < at.h1; ++h)
      for (int w = at.w0; w < at.w1; ++w) {
        const Dtype value = at.plane[h * width + w];
        total += value;
        squares += value * value;
      }
    y[i] = total > 0 ? squares / total : Dtype(0);
    sums[i] = total;
  }
}

// Every number of x gathers over the windows that contain it, in ascending order.
extern "C" __global__ void stochastic_mean_backward(
    const int n, const Dtype* x, const Dtype* y, const Dtype* sums, const Dtype* dy, const int height,
    const int width, const int windows_h, const int windows_w, const int kernel_h, const int kernel_w,
    const int stride_h, const int stride_w, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const int h = i / width % height, w = i % width, plane = i / width / height * windows_h * windows_w;
    const int a0 = h < kernel_h ? 0 : (h - kernel_h) / stride_h + 1, a1 = min(h / stride_h + 1, windows_h);
    const int b0 = w < kernel_w ? 0 : (w - kernel_w) / stride_w + 1, b1 = min(w / stride_w + 1, windows_w);
    Dtype sum = 0;
    for (int a = a0; a < a1; ++a)
      for (int b = b0; b < b1; ++b) {
        const int window = plane + a * windows_w + b;
        if (sums[window] > 0) sum += dy[window] / sums[window] * (x[i] + x[i] - y[window]);
      }
    dx[i] = sum;
  }
}
