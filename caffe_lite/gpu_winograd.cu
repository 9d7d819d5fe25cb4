// The transforms of Winograd's F(4x4, 3x3); the products between them are cuBLAS's. One thread for each tile (of a
// channel) or kernel. A 6 x 6 patch is 36 "frequencies", `n` numbers apart in v, m, z and u: neighbouring threads
// read and write neighbours. Tiles are numbered through the batch, row by row; [first, first + count) take part.

// The interpolation points are 0, +-a, +-b and infinity: see caffe_lite.winograd.
#define PA Dtype(0.75)
#define PB Dtype(1.5)
#define PA2 (PA * PA)
#define PB2 (PB * PB)
#define PA3 (PA2 * PA)
#define PB3 (PB2 * PB)
#define G0 (Dtype(1) / (PA2 * PB2))
#define GA (Dtype(1) / (2 * PA2 * (PA2 - PB2)))
#define GB (Dtype(1) / (2 * PB2 * (PB2 - PA2)))

struct Tile { int image, top, left; };  // of its 4 x 4 outputs

__device__ inline Tile tile_at(int tile, int tiles_y, int tiles_x) {
  const int row = tile / tiles_x;
  return Tile{row / tiles_y, row % tiles_y * 4, tile % tiles_x * 4};
}

// B^T d, in place; the six numbers are `step` apart.
__device__ inline void patch_1d(Dtype* d, int step) {
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
__device__ inline void output_1d(const Dtype* m, int step, Dtype* y, int y_step) {
  const Dtype p = m[step] + m[2 * step], q = m[step] - m[2 * step];
  const Dtype r = m[3 * step] + m[4 * step], s = m[3 * step] - m[4 * step];
  y[0] = m[0] + p + r;
  y[y_step] = PA * q + PB * s;
  y[2 * y_step] = PA2 * p + PB2 * r;
  y[3 * y_step] = PA3 * q + PB3 * s + m[5 * step];
}

// A d: four numbers become six.
__device__ inline void spread_1d(const Dtype* d, int step, Dtype* z, int z_step) {
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
__device__ inline void kernel_1d(const Dtype* g, int step, Dtype* u, int u_step) {
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
__device__ inline void gradient_1d(const Dtype* s, int step, Dtype* g, int g_step) {
  const Dtype p = GA * (s[step] + s[2 * step]), q = GA * PA * (s[step] - s[2 * step]);
  const Dtype r = GB * (s[3 * step] + s[4 * step]), t = GB * PB * (s[3 * step] - s[4 * step]);
  g[0] = G0 * s[0] + p + r;
  g[g_step] = q + t;
  g[2 * g_step] = PA2 * p + PB2 * r + s[5 * step];
}

// u = G g G^T; row i / inputs, column i % inputs of u meets kernel (row, column) of w, or (column, row) turned by
// 180 degrees for the gradient to the data.
extern "C" __global__ void winograd_weights(
    const int n, const Dtype* w, const int inputs, const int channels, const int turned, Dtype* u) {
  CUDA_KERNEL_LOOP(i, n) {
    const int row = i / inputs, column = i % inputs;
    const Dtype* from = w + (long long)(turned ? column * channels + row : row * channels + column) * 9;
    Dtype g[9], half[18], whole[36];
#pragma unroll
    for (int e = 0; e < 9; ++e) g[e] = turned ? from[8 - e] : from[e];
#pragma unroll
    for (int e = 0; e < 3; ++e) kernel_1d(g + e, 3, half + e, 3);
#pragma unroll
    for (int e = 0; e < 6; ++e) kernel_1d(half + 3 * e, 1, whole + 6 * e, 1);
#pragma unroll
    for (int f = 0; f < 36; ++f) u[(long long)f * n + i] = whole[f];
  }
}

// v = B^T d B of channel i / count, tile first + i % count.
extern "C" __global__ void winograd_input(
    const int n, const Dtype* x, const int all_channels, const int channel, const int height, const int width,
    const int pad_h, const int pad_w, const int tiles_y, const int tiles_x, const int first, const int count, Dtype* v) {
  CUDA_KERNEL_LOOP(i, n) {
    const Tile tile = tile_at(first + i % count, tiles_y, tiles_x);
    const int top = tile.top - pad_h, left = tile.left - pad_w;
    const Dtype* plane = x + (long long)(tile.image * all_channels + channel + i / count) * height * width;
    Dtype d[36];
#pragma unroll
    for (int r = 0; r < 6; ++r) {
      const bool inside = top + r >= 0 && top + r < height;
#pragma unroll
      for (int c = 0; c < 6; ++c) {
        const bool here = inside && left + c >= 0 && left + c < width;
        d[6 * r + c] = here ? plane[(top + r) * width + left + c] : Dtype(0);
      }
    }
#pragma unroll
    for (int e = 0; e < 6; ++e) patch_1d(d + e, 6);
#pragma unroll
    for (int e = 0; e < 6; ++e) patch_1d(d + 6 * e, 1);
#pragma unroll
    for (int f = 0; f < 36; ++f) v[(long long)f * n + i] = d[f];
  }
}

// y = A^T m A + bias, clipped at 0 if `clip`: kernel i / count, tile first + i % count.
extern "C" __global__ void winograd_output(
    const int n, const Dtype* m, const Dtype* bias, const int has_bias, const int clip, const int all_kernels,
    const int kernel, const int height, const int width, const int tiles_y, const int tiles_x, const int first,
    const int count, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Tile tile = tile_at(first + i % count, tiles_y, tiles_x);
    const int k = kernel + i / count;
    Dtype whole[36], half[24], out[4];
#pragma unroll
    for (int f = 0; f < 36; ++f) whole[f] = m[(long long)f * n + i];
#pragma unroll
    for (int e = 0; e < 6; ++e) output_1d(whole + e, 6, half + e, 6);
    const Dtype b = has_bias ? bias[k] : Dtype(0);
    Dtype* plane = y + (long long)(tile.image * all_kernels + k) * height * width;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      output_1d(half + 6 * r, 1, out, 1);
      if (tile.top + r >= height) continue;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const Dtype value = out[c] + b;
        if (tile.left + c < width) plane[(tile.top + r) * width + tile.left + c] = clip && value < 0 ? Dtype(0) : value;
      }
    }
  }
}

// z = A dy A^T of kernel i / count, tile first + i % count.
extern "C" __global__ void winograd_spread(
    const int n, const Dtype* dy, const int all_kernels, const int kernel, const int height, const int width,
    const int tiles_y, const int tiles_x, const int first, const int count, Dtype* z) {
  CUDA_KERNEL_LOOP(i, n) {
    const Tile tile = tile_at(first + i % count, tiles_y, tiles_x);
    const Dtype* plane = dy + (long long)(tile.image * all_kernels + kernel + i / count) * height * width;
    Dtype d[16], half[24], whole[36];
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const bool here = tile.top + r < height && tile.left + c < width;
        d[4 * r + c] = here ? plane[(tile.top + r) * width + tile.left + c] : Dtype(0);
      }
#pragma unroll
    for (int e = 0; e < 4; ++e) spread_1d(d + e, 4, half + e, 4);
#pragma unroll
    for (int e = 0; e < 6; ++e) spread_1d(half + 4 * e, 1, whole + 6 * e, 1);
#pragma unroll
    for (int f = 0; f < 36; ++f) z[(long long)f * n + i] = whole[f];
  }
}

// dw += G^T s G, for kernel times channel i.
extern "C" __global__ void winograd_weight_gradient(const int n, const Dtype* s, Dtype* dw) {
  CUDA_KERNEL_LOOP(i, n) {
    Dtype whole[36], half[18], g[9];
#pragma unroll
    for (int f = 0; f < 36; ++f) whole[f] = s[(long long)f * n + i];
#pragma unroll
    for (int e = 0; e < 6; ++e) gradient_1d(whole + e, 6, half + e, 6);
#pragma unroll
    for (int e = 0; e < 3; ++e) gradient_1d(half + 6 * e, 1, g + 3 * e, 1);
#pragma unroll
    for (int e = 0; e < 9; ++e) dw[(long long)9 * i + e] += g[e];
  }
}
