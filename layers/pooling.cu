// Pooling, one thread per element of the array it writes; the backward kernels gather over the windows
// that contain their element, in ascending order, so that two runs give the same bits.

// First and one past the last of the windows that contain position p of an axis.
__device__ inline void windows_over(int p, int kernel, int stride, int pad, int windows, int* first, int* last) {
  *first = p + pad < kernel ? 0 : (p + pad - kernel) / stride + 1;
  *last = min((p + pad) / stride + 1, windows);
}

// Length of a window clipped to [-pad, size + pad).
__device__ inline int divisor(int window, int kernel, int stride, int pad, int size) {
  const int start = window * stride - pad;
  return min(start + kernel, size + pad) - start;
}

extern "C" __global__ void pool_max_forward(
    const int n, const Dtype* x, const int height, const int width, const int windows_h, const int windows_w,
    const int kernel_h, const int kernel_w, const int stride_h, const int stride_w, const int pad_h, const int pad_w,
    Dtype* y, int* mask) {
  CUDA_KERNEL_LOOP(i, n) {
    const int h0 = i / windows_w % windows_h * stride_h - pad_h, w0 = i % windows_w * stride_w - pad_w;
    const int h1 = min(h0 + kernel_h, height), w1 = min(w0 + kernel_w, width);
    const Dtype* plane = x + i / windows_w / windows_h * height * width;
    Dtype best = Dtype(-3.402823466e+38F);  // -FLT_MAX, whatever Dtype is
    int where = -1;
    for (int h = max(h0, 0); h < h1; ++h)
      for (int w = max(w0, 0); w < w1; ++w)
        if (plane[h * width + w] > best) best = plane[where = h * width + w];
    y[i] = best;
    mask[i] = where;
  }
}

extern "C" __global__ void pool_max_backward(
    const int n, const Dtype* dy, const int* mask, const int height, const int width, const int windows_h,
    const int windows_w, const int kernel_h, const int kernel_w, const int stride_h, const int stride_w,
    const int pad_h, const int pad_w, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const int cell = i % (height * width), plane = i / (height * width) * windows_h * windows_w;
    int i0, i1, j0, j1;
    windows_over(cell / width, kernel_h, stride_h, pad_h, windows_h, &i0, &i1);
    windows_over(cell % width, kernel_w, stride_w, pad_w, windows_w, &j0, &j1);
    Dtype sum = 0;
    for (int a = i0; a < i1; ++a)
      for (int b = j0; b < j1; ++b) {
        const int window = plane + a * windows_w + b;
        if (mask[window] == cell) sum += dy[window];
      }
    dx[i] = sum;
  }
}

extern "C" __global__ void pool_ave_forward(
    const int n, const Dtype* x, const int height, const int width, const int windows_h, const int windows_w,
    const int kernel_h, const int kernel_w, const int stride_h, const int stride_w, const int pad_h, const int pad_w,
    Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const int a = i / windows_w % windows_h, b = i % windows_w;
    const int h0 = a * stride_h - pad_h, w0 = b * stride_w - pad_w;
    const int h1 = min(h0 + kernel_h, height), w1 = min(w0 + kernel_w, width);
    const Dtype* plane = x + i / windows_w / windows_h * height * width;
    Dtype sum = 0;
    for (int h = max(h0, 0); h < h1; ++h)
      for (int w = max(w0, 0); w < w1; ++w) sum += plane[h * width + w];
    const int area = divisor(a, kernel_h, stride_h, pad_h, height) * divisor(b, kernel_w, stride_w, pad_w, width);
    y[i] = area > 0 ? sum / area : Dtype(0);
  }
}

extern "C" __global__ void pool_ave_backward(
    const int n, const Dtype* dy, const int height, const int width, const int windows_h, const int windows_w,
    const int kernel_h, const int kernel_w, const int stride_h, const int stride_w, const int pad_h, const int pad_w,
    Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const int cell = i % (height * width), plane = i / (height * width) * windows_h * windows_w;
    int i0, i1, j0, j1;
    windows_over(cell / width, kernel_h, stride_h, pad_h, windows_h, &i0, &i1);
    windows_over(cell % width, kernel_w, stride_w, pad_w, windows_w, &j0, &j1);
    Dtype sum = 0;
    for (int a = i0; a < i1; ++a)
      for (int b = j0; b < j1; ++b) {
        const int area = divisor(a, kernel_h, stride_h, pad_h, height) * divisor(b, kernel_w, stride_w, pad_w, width);
        sum += dy[plane + a * windows_w + b] / area;
      }
    dx[i] = sum;
  }
}
