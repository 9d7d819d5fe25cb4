// The transforms of Winograd's F(4x4, 3x3) and F(2x2, 3x3); the products between them are cuBLAS's. One thread for
// each tile (of a channel) or kernel. A tile of `tile` x `tile` outputs, 4 or 2, sees a patch of (tile + 2)^2 inputs,
// whose "frequencies" lie `n` numbers apart in u, v, m, z and s: neighbouring threads read and write neighbours. Tiles
// are numbered through the batch, row by row; [first, first + count) take part.

// The interpolation points of F(4x4, 3x3) are 0, +-a, +-b and infinity: see caffe_lite.winograd.
#define PA Dtype(0.75)
#define PB Dtype(1.5)
#define PA2 (PA * PA)
#define PB2 (PB * PB)
#define PA3 (PA2 * PA)
#define PB3 (PB2 * PB)
#define G0 (Dtype(1) / (PA2 * PB2))
#define GA (Dtype(1) / (2 * PA2 * (PA2 - PB2)))
#define GB (Dtype(1) / (2 * PB2 * (PB2 - PA2)))

// The transforms of a row or column; the numbers of each are `step` apart.
template <int TILE> struct Transform;

template <> struct Transform<4> {
  // B^T d, in place.
  static __device__ inline void patch(Dtype* d, int step) {
    const Dtype d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const Dtype even_a = d4 - PB2 * d2, odd_a = PA * d3 - PA * PB2 * d1;
    const Dtype even_b = d4 - PA2 * d2, odd_b = PB * d3 - PB * PA2 * d1;
    d[0] = PA2 * PB2 * d0 - (PA2 + PB2) * d2 + d4;
    d[step] = even_a + odd_a;
    d[2 * step] = even_a - odd_a;
    d[3 * step] = even_b + odd_b;
    d[4 * step] = even_b - odd_b;
    d[5 * step] = PA2 * PB2 * d1 - (PA2 + PB2) * d3 + d5;
  }

  // A^T m: six numbers become four.
  static __device__ inline void output(const Dtype* m, int step, Dtype* y, int y_step) {
    const Dtype p = m[step] + m[2 * step], q = m[step] - m[2 * step];
    const Dtype r = m[3 * step] + m[4 * step], s = m[3 * step] - m[4 * step];
    y[0] = m[0] + p + r;
    y[y_step] = PA * q + PB * s;
    y[2 * y_step] = PA2 * p + PB2 * r;
    y[3 * y_step] = PA3 * q + PB3 * s + m[5 * step];
  }

  // A d: four numbers become six.
  static __device__ inline void spread(const Dtype* d, int step, Dtype* z, int z_step) {
    const Dtype d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    const Dtype even_a = d0 + PA2 * d2, odd_a = PA * d1 + PA3 * d3;
    const Dtype even_b = d0 + PB2 * d2, odd_b = PB * d1 + PB3 * d3;
    z[0] = d0;
    z[z_step] = even_a + odd_a;
    z[2 * z_step] = even_a - odd_a;
    z[3 * z_step] = even_b + odd_b;
    z[4 * z_step] = even_b - odd_b;
    z[5 * z_step] = d3;
  }

  // G g: three numbers become six.
  static __device__ inline void kernel(const Dtype* g, int step, Dtype* u, int u_step) {
    const Dtype g0 = g[0], g1 = g[step], g2 = g[2 * step];
    const Dtype even_a = GA * g0 + GA * PA2 * g2, odd_a = GA * PA * g1;
    const Dtype even_b = GB * g0 + GB * PB2 * g2, odd_b = GB * PB * g1;
    u[0] = G0 * g0;
    u[u_step] = even_a + odd_a;
    u[2 * u_step] = even_a - odd_a;
    u[3 * u_step] = even_b + odd_b;
    u[4 * u_step] = even_b - odd_b;
    u[5 * u_step] = g2;
  }

  // G^T s: six numbers become three.
  static __device__ inline void gradient(const Dtype* s, int step, Dtype* g, int g_step) {
    const Dtype p = GA * (s[step] + s[2 * step]), q = GA * PA * (s[step] - s[2 * step]);
    const Dtype r = GB * (s[3 * step] + s[4 * step]), t = GB * PB * (s[3 * step] - s[4 * step]);
    g[0] = G0 * s[0] + p + r;
    g[g_step] = q + t;
    g[2 * g_step] = PA2 * p + PB2 * r + s[5 * step];
  }
};

// With the points 0, +-1 and infinity; the comments of F(4x4, 3x3) hold, with four numbers for six and two for four.
template <> struct Transform<2> {
  static __device__ inline void patch(Dtype* d, int step) {
    const Dtype d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    d[0] = d0 - d2;
    d[step] = d2 + d1;
    d[2 * step] = d2 - d1;
    d[3 * step] = d3 - d1;
  }

  static __device__ inline void output(const Dtype* m, int step, Dtype* y, int y_step) {
    y[0] = m[0] + (m[step] + m[2 * step]);
    y[y_step] = (m[step] - m[2 * step]) + m[3 * step];
  }

  static __device__ inline void spread(const Dtype* d, int step, Dtype* z, int z_step) {
    const Dtype d0 = d[0], d1 = d[step];
    z[0] = d0;
    z[z_step] = d0 + d1;
    z[2 * z_step] = d0 - d1;
    z[3 * z_step] = d1;
  }

  static __device__ inline void kernel(const Dtype* g, int step, Dtype* u, int u_step) {
    const Dtype g0 = g[0], g1 = g[step], g2 = g[2 * step];
    const Dtype even = (g0 + g2) * Dtype(0.5), odd = g1 * Dtype(0.5);
    u[0] = g0;
    u[u_step] = even + odd;
    u[2 * u_step] = even - odd;
    u[3 * u_step] = g2;
  }

  static __device__ inline void gradient(const Dtype* s, int step, Dtype* g, int g_step) {
    const Dtype p = (s[step] + s[2 * step]) * Dtype(0.5), q = (s[step] - s[2 * step]) * Dtype(0.5);
    g[0] = s[0] + p;
    g[g_step] = q;
    g[2 * g_step] = p + s[3 * step];
  }
};

struct Place { int image, top, left; };  // of a tile's outputs

__device__ inline Place place_of(int number, int tile, int tiles_y, int tiles_x) {
  const int row = number / tiles_x;
  return Place{row / tiles_y, row % tiles_y * tile, number % tiles_x * tile};
}

// Of an image; 0 around it.
__device__ inline Dtype number_at(const Dtype* plane, int height, int width, int row, int column) {
  return row >= 0 && row < height && column >= 0 && column < width ? plane[row * width + column] : Dtype(0);
}

// u = G g G^T of the kernel `from`, turned by 180 degrees if `turned`.
template <int TILE> __device__ inline void transform_weights(const Dtype* from, bool turned, long long n, Dtype* u) {
  const int side = TILE + 2;
  Dtype g[9], half[side * 3], whole[side * side];
#pragma unroll
  for (int e = 0; e < 9; ++e) g[e] = turned ? from[8 - e] : from[e];
#pragma unroll
  for (int e = 0; e < 3; ++e) Transform<TILE>::kernel(g + e, 3, half + e, 3);
#pragma unroll
  for (int e = 0; e < side; ++e) Transform<TILE>::kernel(half + 3 * e, 1, whole + side * e, 1);
#pragma unroll
  for (int f = 0; f < side * side; ++f) u[f * n] = whole[f];
}

// v = B^T d B of the patch of `plane` from (top, left) on.
template <int TILE> __device__ inline void transform_patch(
    const Dtype* plane, int height, int width, int top, int left, long long n, Dtype* v) {
  const int side = TILE + 2;
  Dtype d[side * side];
#pragma unroll
  for (int r = 0; r < side; ++r)
#pragma unroll
    for (int c = 0; c < side; ++c) d[side * r + c] = number_at(plane, height, width, top + r, left + c);
#pragma unroll
  for (int e = 0; e < side; ++e) Transform<TILE>::patch(d + e, side);
#pragma unroll
  for (int e = 0; e < side; ++e) Transform<TILE>::patch(d + side * e, 1);
#pragma unroll
  for (int f = 0; f < side * side; ++f) v[f * n] = d[f];
}

// A^T m A + bias, clipped at 0 if `clip`, into the tile of `plane` from (top, left) on.
template <int TILE> __device__ inline void transform_output(
    const Dtype* m, long long n, Dtype bias, bool clip, int height, int width, int top, int left, Dtype* plane) {
  const int side = TILE + 2;
  Dtype whole[side * side], half[TILE * side], out[TILE];
#pragma unroll
  for (int f = 0; f < side * side; ++f) whole[f] = m[f * n];
#pragma unroll
  for (int e = 0; e < side; ++e) Transform<TILE>::output(whole + e, side, half + e, side);
#pragma unroll
  for (int r = 0; r < TILE; ++r) {
    Transform<TILE>::output(half + side * r, 1, out, 1);
    if (top + r >= height) continue;
#pragma unroll
    for (int c = 0; c < TILE; ++c) {
      const Dtype value = out[c] + bias;
      if (left + c < width) plane[(top + r) * width + left + c] = clip && value < 0 ? Dtype(0) : value;
    }
  }
}

// z = A dy A^T of the tile of `plane` from (top, left) on.
template <int TILE> __device__ inline void spread_tile(
    const Dtype* plane, int height, int width, int top, int left, long long n, Dtype* z) {
  const int side = TILE + 2;
  Dtype d[TILE * TILE], half[side * TILE], whole[side * side];
#pragma unroll
  for (int r = 0; r < TILE; ++r)
#pragma unroll
    for (int c = 0; c < TILE; ++c) d[TILE * r + c] = number_at(plane, height, width, top + r, left + c);
#pragma unroll
  for (int e = 0; e < TILE; ++e) Transform<TILE>::spread(d + e, TILE, half + e, TILE);
#pragma unroll
  for (int e = 0; e < side; ++e) Transform<TILE>::spread(half + TILE * e, 1, whole + side * e, 1);
#pragma unroll
  for (int f = 0; f < side * side; ++f) z[f * n] = whole[f];
}

// dw += G^T s G.
template <int TILE> __device__ inline void add_gradient(const Dtype* s, long long n, Dtype* dw) {
  const int side = TILE + 2;
  Dtype whole[side * side], half[3 * side], g[9];
#pragma unroll
  for (int f = 0; f < side * side; ++f) whole[f] = s[f * n];
#pragma unroll
  for (int e = 0; e < side; ++e) Transform<TILE>::gradient(whole + e, side, half + e, side);
#pragma unroll
  for (int e = 0; e < 3; ++e) Transform<TILE>::gradient(half + side * e, 1, g + 3 * e, 1);
#pragma unroll
  for (int e = 0; e < 9; ++e) dw[e] += g[e];
}

// Row i / inputs, column i % inputs of u meets kernel (row, column) of w, or (column, row) turned by 180 degrees for
// the gradient to the data.
extern "C" __global__ void winograd_weights(
    const int n, const int tile, const Dtype* w, const int inputs, const int channels, const int turned, Dtype* u) {
  CUDA_KERNEL_LOOP(i, n) {
    const int row = i / inputs, column = i % inputs;
    const Dtype* from = w + (long long)(turned ? column * channels + row : row * channels + column) * 9;
    if (tile == 4) transform_weights<4>(from, turned, n, u + i);
    else transform_weights<2>(from, turned, n, u + i);
  }
}

// Channel i / count, tile first + i % count.
extern "C" __global__ void winograd_input(
    const int n, const int tile, const Dtype* x, const int all_channels, const int channel, const int height,
    const int width, const int pad_h, const int pad_w, const int tiles_y, const int tiles_x, const int first,
    const int count, Dtype* v) {
  CUDA_KERNEL_LOOP(i, n) {
    const Place at = place_of(first + i % count, tile, tiles_y, tiles_x);
    const int top = at.top - pad_h, left = at.left - pad_w;
    const Dtype* plane = x + (long long)(at.image * all_channels + channel + i / count) * height * width;
    if (tile == 4) transform_patch<4>(plane, height, width, top, left, n, v + i);
    else transform_patch<2>(plane, height, width, top, left, n, v + i);
  }
}

// Kernel i / count, tile first + i % count.
extern "C" __global__ void winograd_output(
    const int n, const int tile, const Dtype* m, const Dtype* bias, const int has_bias, const int clip,
    const int all_kernels, const int kernel, const int height, const int width, const int tiles_y, const int tiles_x,
    const int first, const int count, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Place at = place_of(first + i % count, tile, tiles_y, tiles_x);
    const int k = kernel + i / count;
    const Dtype b = has_bias ? bias[k] : Dtype(0);
    Dtype* plane = y + (long long)(at.image * all_kernels + k) * height * width;
    if (tile == 4) transform_output<4>(m + i, n, b, clip, height, width, at.top, at.left, plane);
    else transform_output<2>(m + i, n, b, clip, height, width, at.top, at.left, plane);
  }
}

// Kernel i / count, tile first + i % count.
extern "C" __global__ void winograd_spread(
    const int n, const int tile, const Dtype* dy, const int all_kernels, const int kernel, const int height,
    const int width, const int tiles_y, const int tiles_x, const int first, const int count, Dtype* z) {
  CUDA_KERNEL_LOOP(i, n) {
    const Place at = place_of(first + i % count, tile, tiles_y, tiles_x);
    const Dtype* plane = dy + (long long)(at.image * all_kernels + kernel + i / count) * height * width;
    if (tile == 4) spread_tile<4>(plane, height, width, at.top, at.left, n, z + i);
    else spread_tile<2>(plane, height, width, at.top, at.left, n, z + i);
  }
}

// Kernel times channel i.
extern "C" __global__ void winograd_weight_gradient(const int n, const int tile, const Dtype* s, Dtype* dw) {
  CUDA_KERNEL_LOOP(i, n) {
    if (tile == 4) add_gradient<4>(s + i, n, dw + (long long)9 * i);
    else add_gradient<2>(s + i, n, dw + (long long)9 * i);
  }
}
