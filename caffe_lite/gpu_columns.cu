// im2col and its transpose: one thread per number written. `channel` is the first channel that takes part,
// counted through the batch, and `first` the first of `count` output positions of an image.

extern "C" __global__ void im2col_2d(
    const int n, const Dtype* x, const int channel, const int height, const int width, const int kernel_h,
    const int kernel_w, const int stride_h, const int stride_w, const int pad_h, const int pad_w,
    const int dilation_h, const int dilation_w, const int out_w, const int first, const int count, Dtype* col) {
  CUDA_KERNEL_LOOP(i, n) {
    const int row = i / count, position = first + i % count;
    const int tap = row % (kernel_h * kernel_w), c = channel + row / (kernel_h * kernel_w);
    const int h = position / out_w * stride_h - pad_h + tap / kernel_w * dilation_h;
    const int w = position % out_w * stride_w - pad_w + tap % kernel_w * dilation_w;
    const bool inside = h >= 0 && h < height && w >= 0 && w < width;
    col[i] = inside ? x[((long long)c * height + h) * width + w] : Dtype(0);
  }
}

// Every number of x gathers what im2col made of it, in the order of the taps.
extern "C" __global__ void col2im_2d(
    const int n, const Dtype* col, const int channel, const int height, const int width, const int kernel_h,
    const int kernel_w, const int stride_h, const int stride_w, const int pad_h, const int pad_w,
    const int dilation_h, const int dilation_w, const int out_h, const int out_w, const int first, const int count,
    const int add, Dtype* x) {
  CUDA_KERNEL_LOOP(i, n) {
    const int w = i % width + pad_w, h = i / width % height + pad_h, c = i / width / height;
    Dtype sum = 0;
    for (int kh = 0; kh < kernel_h; ++kh) {
      const int top = h - kh * dilation_h, oh = top / stride_h;
      if (top < 0 || top % stride_h != 0 || oh >= out_h) continue;
      for (int kw = 0; kw < kernel_w; ++kw) {
        const int left = w - kw * dilation_w, ow = left / stride_w;
        if (left < 0 || left % stride_w != 0 || ow >= out_w) continue;
        const int t = oh * out_w + ow - first;
        if (t >= 0 && t < count) sum += col[((long long)(c * kernel_h + kh) * kernel_w + kw) * count + t];
      }
    }
    Dtype* const target = x + (long long)channel * height * width + i;
    *target = add ? *target + sum : sum;
  }
}

// The same for any number of axes. Rows of `table`, `axes` numbers each: size, kernel, stride, pad, dilation, out.
extern "C" __global__ void im2col_nd(
    const int n, const Dtype* x, const int channel, const int axes, const int* table, const int taps,
    const int plane, const int first, const int count, Dtype* col) {
  const int *size = table, *kernel = table + axes, *stride = table + 2 * axes, *pad = table + 3 * axes,
            *dilation = table + 4 * axes, *out = table + 5 * axes;
  CUDA_KERNEL_LOOP(i, n) {
    const int row = i / count;
    int position = first + i % count, tap = row % taps, step = 1, offset = 0;
    bool inside = true;
    for (int a = axes - 1; a >= 0; --a) {
      const int at = position % out[a] * stride[a] - pad[a] + tap % kernel[a] * dilation[a];
      inside = inside && at >= 0 && at < size[a];
      offset += at * step;
      step *= size[a];
      position /= out[a];
      tap /= kernel[a];
    }
    col[i] = inside ? x[(long long)(channel + row / taps) * plane + offset] : Dtype(0);
  }
}

extern "C" __global__ void col2im_nd(
    const int n, const Dtype* col, const int channel, const int axes, const int* table, const int taps,
    const int plane, const int first, const int count, const int add, Dtype* x) {
  const int *size = table, *kernel = table + axes, *stride = table + 2 * axes, *pad = table + 3 * axes,
            *dilation = table + 4 * axes, *out = table + 5 * axes;
  CUDA_KERNEL_LOOP(i, n) {
    Dtype sum = 0;
    for (int number = 0; number < taps; ++number) {
      int pixel = i % plane, tap = number, step = 1, t = -first;
      bool met = true;
      for (int a = axes - 1; a >= 0 && met; --a) {
        const int at = pixel % size[a] + pad[a] - tap % kernel[a] * dilation[a];
        met = at >= 0 && at % stride[a] == 0 && at / stride[a] < out[a];
        t += at / stride[a] * step;
        step *= out[a];
        pixel /= size[a];
        tap /= kernel[a];
      }
      if (met && t >= 0 && t < count) sum += col[((long long)(i / plane) * taps + number) * count + t];
    }
    Dtype* const target = x + (long long)channel * plane + i;
    *target = add ? *target + sum : sum;
  }
}

// y + bias, clipped at 0 if `clip`, for channels [first, first + kernels) of y.
extern "C" __global__ void columns_epilogue(
    const int n, const int positions, const int kernels, const int all_kernels, const int first, const Dtype* bias,
    const int has_bias, const int clip, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const int k = first + i / positions % kernels;
    Dtype* const target = y + ((long long)(i / positions / kernels) * all_kernels + k) * positions + i % positions;
    const Dtype value = has_bias ? *target + bias[k] : *target;
    *target = clip && value < 0 ? Dtype(0) : value;
  }
}
