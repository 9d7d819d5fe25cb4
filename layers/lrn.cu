// LRN, one thread per element. The neighbours of an element are ``reach_c`` channels before and after it
// and the square of ``reach_p`` pixels around it; one of the two is 0.

__device__ inline Dtype sum_around(const Dtype* a, int i, int channels, int height, int width, int reach_c, int reach_p,
                                   bool squared) {
  const int w = i % width, h = i / width % height, c = i / width / height % channels;
  Dtype sum = 0;
  for (int oc = max(c - reach_c, 0); oc <= min(c + reach_c, channels - 1); ++oc)
    for (int oh = max(h - reach_p, 0); oh <= min(h + reach_p, height - 1); ++oh)
      for (int ow = max(w - reach_p, 0); ow <= min(w + reach_p, width - 1); ++ow) {
        const Dtype v = a[i + ((oc - c) * height + oh - h) * width + ow - w];
        sum += squared ? v * v : v;
      }
  return sum;
}

extern "C" __global__ void lrn_forward(
    const int n, const Dtype* x, const int channels, const int height, const int width, const int reach_c,
    const int reach_p, const Dtype k, const Dtype alpha, const Dtype beta, Dtype* scale, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype s = k + alpha * sum_around(x, i, channels, height, width, reach_c, reach_p, true);
    scale[i] = s;
    y[i] = x[i] * pow(s, -beta);
  }
}

extern "C" __global__ void lrn_ratio(
    const int n, const Dtype* x, const Dtype* scale, const Dtype* dy, const Dtype beta, Dtype* ratio) {
  CUDA_KERNEL_LOOP(i, n) { ratio[i] = dy[i] * x[i] * pow(scale[i], -beta - 1); }
}

extern "C" __global__ void lrn_backward(
    const int n, const Dtype* x, const Dtype* scale, const Dtype* dy, const Dtype* ratio, const int channels,
    const int height, const int width, const int reach_c, const int reach_p, const Dtype factor, const Dtype beta,
    Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype sum = sum_around(ratio, i, channels, height, width, reach_c, reach_p, false);
    dx[i] = dy[i] * pow(scale[i], -beta) - factor * x[i] * sum;
  }
}
