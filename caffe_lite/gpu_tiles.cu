// Convolution as a product whose patches are never laid out: blocks of threads fetch tiles of both factors into
// shared memory. The table has three numbers for each row of the patch matrix (a channel and a tap): where the row's
// number lies, counted from the corner of the patch in x, and its distance from that corner, down and across.
// Two tiles are kept: one is multiplied while the next one is fetched.

// What is the same for every image and thread, as caffe_lite.gpu_tiles.Plan.
struct Plan {
  int kernels, rows;                                  // the product is (kernels, rows) (rows, positions)
  int x_image, x_first, height, width;                // numbers of an image of x, before its first channel; size
  int stride_h, stride_w, pad_h, pad_w;               // position (i, j) sees the patch from (i, j) stride - pad on
  int grid_h, grid_w;                                 // positions of an image
  int y_image, y_first, y_plane, y_width;             // of y likewise; numbers of a channel and of a row
  int y_step_h, y_step_w, y_start_h, y_start_w;       // position (i, j) is written to (i, j) step + start
};

struct Place { int image, i, j; };

__device__ inline Place place_of(int position, const Plan& p) {
  const int line = position / p.grid_w;
  return Place{line / p.grid_h, line % p.grid_h, position % p.grid_w};
}

#define THREADS 128

// y = w * x + bias, clipped at 0 if `clip`. A block makes 64 kernels times 128 positions of y, a thread 8 x 8 of them.
#define TILE_K 64
#define TILE_P 128
#define DEPTH 8  // rows of the patch matrix at a time

extern "C" __global__ void __launch_bounds__(THREADS) conv_tiles(
    const int positions, const int* plan, const int* table, const Dtype* w, const Dtype* x, const Dtype* bias,
    const int has_bias, const int clip, Dtype* y) {
  __shared__ __align__(16) Dtype a[2][DEPTH][TILE_K];
  __shared__ __align__(16) Dtype b[2][DEPTH][TILE_P];
  const Plan p = *(const Plan*)plan;
  const int t = threadIdx.x, first_k = blockIdx.y * TILE_K, first_p = blockIdx.x * TILE_P;

  // A thread fetches one column of b, and four neighbours in a row of a.
  const Place mine = place_of(first_p + t, p);
  const bool real = first_p + t < positions;
  const int top = mine.i * p.stride_h - p.pad_h, left = mine.j * p.stride_w - p.pad_w;
  const Dtype* corner = x + (real ? (long long)mine.image * p.x_image : 0) + p.x_first;
  const int k = first_k + t / 2, half = t % 2 * 4;
  Dtype next_a[4], next_b[DEPTH], sum[8][8] = {};

  for (int r0 = -DEPTH, now = 1; r0 < p.rows; r0 += DEPTH, now ^= 1) {
    const int r1 = r0 + DEPTH;
    if (r1 < p.rows) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = r1 + half + e;
        next_a[e] = k < p.kernels && r < p.rows ? w[k * p.rows + r] : Dtype(0);
      }
#pragma unroll
      for (int e = 0; e < DEPTH; ++e) {
        next_b[e] = 0;
        if (r1 + e >= p.rows) continue;
        const int* row = table + 3 * (r1 + e);
        const int h = top + row[1], v = left + row[2];
        if (real && h >= 0 && h < p.height && v >= 0 && v < p.width) next_b[e] = corner[top * p.width + left + row[0]];
      }
    }
    if (r0 >= 0) {
      const int tx = t % 16 * 4, ty = t / 16 * 4;
#pragma unroll
      for (int r = 0; r < DEPTH; ++r) {
        Dtype left_factor[8], right_factor[8];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          left_factor[e] = a[now][r][ty + e];
          left_factor[4 + e] = a[now][r][TILE_K / 2 + ty + e];
          right_factor[e] = b[now][r][tx + e];
          right_factor[4 + e] = b[now][r][TILE_P / 2 + tx + e];
        }
#pragma unroll
        for (int e = 0; e < 8; ++e)
#pragma unroll
          for (int f = 0; f < 8; ++f) sum[e][f] += left_factor[e] * right_factor[f];
      }
    }
    if (r1 < p.rows) {
#pragma unroll
      for (int e = 0; e < 4; ++e) a[now ^ 1][half + e][t / 2] = next_a[e];
#pragma unroll
      for (int e = 0; e < DEPTH; ++e) b[now ^ 1][e][t] = next_b[e];
    }
    __syncthreads();
  }

#pragma unroll
  for (int f = 0; f < 8; ++f) {
    const int position = first_p + f / 4 * (TILE_P / 2) + t % 16 * 4 + f % 4;
    if (position >= positions) continue;
    const Place at = place_of(position, p);
    Dtype* const target = y + (long long)at.image * p.y_image + p.y_first +
                          (at.i * p.y_step_h + p.y_start_h) * p.y_width + at.j * p.y_step_w + p.y_start_w;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const int kernel = first_k + e / 4 * (TILE_K / 2) + t / 16 * 4 + e % 4;
      if (kernel >= p.kernels) continue;
      const Dtype value = has_bias ? sum[e][f] + bias[kernel] : sum[e][f];
      target[kernel * p.y_plane] = clip && value < 0 ? Dtype(0) : value;
    }
  }
}

// part[z] = the share of dw that the z-th of the slices of all positions makes. A block makes 64 kernels times 64 rows,
// a thread 8 x 4 of them.
#define TILE_R 64
#define STEP 32       // positions at a time
#define SKEWED (64 + 4)  // what a row of a tile takes in shared memory: spreads a column over the banks

extern "C" __global__ void __launch_bounds__(THREADS) conv_weight_tiles(
    const int positions, const int slice, const int* plan, const int* table, const Dtype* x, const Dtype* dy,
    Dtype* part) {
  __shared__ __align__(16) Dtype a[STEP][SKEWED];
  __shared__ __align__(16) Dtype b[STEP][SKEWED];
  const Plan p = *(const Plan*)plan;
  const int lane = threadIdx.x % STEP, warp = threadIdx.x / STEP;
  const int tx = threadIdx.x % 16 * 4, ty = threadIdx.x / 16 * 4;
  const int first_k = blockIdx.y * TILE_K, first_r = blockIdx.x * TILE_R;
  const int start = blockIdx.z * slice, stop = min(start + slice, positions);
  Dtype sum[8][4] = {};

  for (int first = start; first < stop; first += STEP) {
    const bool real = first + lane < stop;
    const Place mine = place_of(real ? first + lane : 0, p);
    const int top = mine.i * p.stride_h - p.pad_h, left = mine.j * p.stride_w - p.pad_w;
    const Dtype* gradient = dy + (long long)mine.image * p.y_image + p.y_first + mine.i * p.y_width + mine.j;
    const Dtype* corner = x + (long long)mine.image * p.x_image + p.x_first;
#pragma unroll 4
    for (int e = warp; e < TILE_K; e += THREADS / STEP)
      a[lane][e] = real && first_k + e < p.kernels ? gradient[(first_k + e) * p.y_plane] : Dtype(0);
#pragma unroll 4
    for (int e = warp; e < TILE_R; e += THREADS / STEP) {
      Dtype value = 0;
      if (real && first_r + e < p.rows) {
        const int* row = table + 3 * (first_r + e);
        const int h = top + row[1], v = left + row[2];
        if (h >= 0 && h < p.height && v >= 0 && v < p.width) value = corner[top * p.width + left + row[0]];
      }
      b[lane][e] = value;
    }
    __syncthreads();
#pragma unroll 4
    for (int q = 0; q < STEP; ++q) {
      Dtype left_factor[8], right_factor[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        left_factor[e] = a[q][ty + e];
        left_factor[4 + e] = a[q][TILE_K / 2 + ty + e];
        right_factor[e] = b[q][tx + e];
      }
#pragma unroll
      for (int e = 0; e < 8; ++e)
#pragma unroll
        for (int f = 0; f < 4; ++f) sum[e][f] += left_factor[e] * right_factor[f];
    }
    __syncthreads();
  }

#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const int kernel = first_k + e / 4 * (TILE_K / 2) + ty + e % 4;
#pragma unroll
    for (int f = 0; f < 4; ++f) {
      const int row = first_r + tx + f;
      if (kernel < p.kernels && row < p.rows)
        part[((long long)blockIdx.z * p.kernels + kernel) * p.rows + row] = sum[e][f];
    }
  }
}

// dw += the sum of the slices' shares, in their order.
extern "C" __global__ void conv_weight_sum(const int n, const Dtype* part, const int slices, Dtype* dw) {
  CUDA_KERNEL_LOOP(i, n) {
    Dtype sum = 0;
    for (int z = 0; z < slices; ++z) sum += part[(long long)z * n + i];
    dw[i] += sum;
  }
}
