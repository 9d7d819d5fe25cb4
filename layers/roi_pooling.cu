// ROIPooling. Everything up to the bin edges is float, whatever Dtype is, and written so that no multiply-add can be
// fused.
#define WARP 32
#define WARPS 4  // of a block
#define FULL 0xffffffffu

// The image of a RoI; -1 if it has no such image, or a coordinate that is no number.
__device__ inline int image_of(const Dtype* roi, int images) {
  bool usable = roi[0] > -1 && roi[0] < images;
  for (int k = 1; k < 5; ++k) usable = usable && roi[k] - roi[k] == 0;  // neither NaN nor infinite
  return usable ? int(roi[0]) : -1;
}

// A coordinate of the image in cells of the feature map, half away from zero.
__device__ inline int to_cell(Dtype coordinate, Dtype spatial_scale) {
  const float limit = 536870912.0f;  // 2^29: sums of cells must fit an int
  const float scaled = float(coordinate) * float(spatial_scale);
  return int(round(min(max(scaled, -limit), limit)));
}

// May a cell get gradient from bin p: is it in the region, and the bin among those over it?
__device__ inline bool reached_by(int p, int start, int end, float size, int cell) {
  if (cell < start || cell > end) return false;
  return floor(float(cell - start) / size) <= p && ceil(float(cell - start + 1) / size) > p;
}

// What a bin covers of an axis: it reads the cells [first, last), of which [from, to) get gradient.
struct Span { int first, last, from, to; };

__device__ inline Span span_of(int p, int pooled, int start, int end, int limit) {
  const float size = float(max(end - start + 1, 1)) / float(pooled);
  Span s;
  s.from = s.first = min(max(int(floor(float(p) * size)) + start, 0), limit);
  s.to = s.last = min(max(int(ceil(float(p + 1) * size)) + start, 0), limit);
  while (s.from < s.to && !reached_by(p, start, end, size, s.from)) ++s.from;
  while (s.from < s.to && !reached_by(p, start, end, size, s.to - 1)) --s.to;
  return s;
}

// (images, channels, cells) -> (images, cells, channels), in tiles of 32 x 32.
extern "C" __global__ void __launch_bounds__(WARPS * WARP) roi_pool_channels_last(
    const int channels, const int cells, const Dtype* data, Dtype* last) {
  __shared__ Dtype tile[WARP][WARP + 1];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int c0 = blockIdx.y * WARP, first = blockIdx.x * WARP;
  const size_t image = (size_t)blockIdx.z * channels * cells;
  for (int c = warp; c < WARP; c += WARPS)
    if (c0 + c < channels && first + lane < cells) tile[c][lane] = data[image + (c0 + c) * cells + first + lane];
  __syncthreads();
  for (int i = warp; i < WARP; i += WARPS)
    if (c0 + lane < channels && first + i < cells) last[image + (first + i) * channels + c0 + lane] = tile[lane][i];
}

// A block pools 32 channels of a RoI. The lanes of a warp are channels, which are last in `data`: a cell is one line of
// the cache (lanes that are bins touch about six lines), a bin's edges are found once for all channels, and no lane
// waits for another one's larger bin. The results gather in shared memory, since y has its channels first.
#define BINS 64  // at a time

struct Bin {
  Span rows, columns;
  bool partly;  // some of its cells get no gradient
};

__device__ inline Bin bin_of(
    const Dtype* roi, int bin, int height, int width, int pooled_h, int pooled_w, Dtype spatial_scale) {
  const int x1 = to_cell(roi[1], spatial_scale), x2 = to_cell(roi[3], spatial_scale);
  const int y1 = to_cell(roi[2], spatial_scale), y2 = to_cell(roi[4], spatial_scale);
  const Span r = span_of(bin / pooled_w, pooled_h, y1, y2, height);
  const Span c = span_of(bin % pooled_w, pooled_w, x1, x2, width);
  return Bin{r, c, r.from > r.first || r.to < r.last || c.from > c.first || c.to < c.last};
}

// The maximum of a channel in a bin, and where it is; -1 if there is none, or none that gets gradient.
__device__ inline Dtype pool(const Bin& bin, const Dtype* channel, int channels, int width, Dtype empty, int* where) {
  const Span rows = bin.rows, columns = bin.columns;
  Dtype best = rows.first < rows.last && columns.first < columns.last ? Dtype(-3.402823466e+38F) : empty;
  int at = -1;
  for (int h = rows.first; h < rows.last; ++h) {
    const Dtype* cell = channel + (size_t)(h * width + columns.first) * channels;
    for (int w = columns.first; w < columns.last; ++w, cell += channels)
      if (*cell > best) {
        best = *cell;
        at = h * width + w;
      }
  }
  if (bin.partly && at >= 0) {
    const int h = at / width, w = at % width;
    if (h < rows.from || h >= rows.to || w < columns.from || w >= columns.to) at = -1;
  }
  *where = at;
  return best;
}

extern "C" __global__ void __launch_bounds__(WARPS * WARP) roi_pool_forward(
    const Dtype* data, const Dtype* rois, const int images, const int channels, const int height, const int width,
    const int pooled_h, const int pooled_w, const Dtype spatial_scale, const int keep, Dtype* y, int* argmax) {
  __shared__ Bin bin[BINS];
  __shared__ Dtype best[WARP][BINS + 1];
  __shared__ int where[WARP][BINS + 1];
  const int groups = (channels + WARP - 1) / WARP, bins = pooled_h * pooled_w;
  const int r = blockIdx.x / groups, c0 = blockIdx.x % groups * WARP, present = min(WARP, channels - c0);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, t = threadIdx.x;
  const Dtype* roi = rois + 5 * r;
  const int image = image_of(roi, images);
  const Dtype empty = image < 0 ? (roi[0] - roi[0]) / Dtype(0) : Dtype(0);  // NaN, with no header for its name
  const Dtype* channel = data + (size_t)max(image, 0) * height * width * channels + c0 + lane;

  for (int b0 = 0; b0 < bins; b0 += BINS) {
    const int held = min(BINS, bins - b0);
    if (t < held) bin[t] = image < 0 ? Bin{} : bin_of(roi, b0 + t, height, width, pooled_h, pooled_w, spatial_scale);
    __syncthreads();
    for (int b = warp; b < held && lane < present; b += WARPS)
      best[lane][b] = pool(bin[b], channel, channels, width, empty, &where[lane][b]);
    __syncthreads();
    for (int c = warp; c < present; c += WARPS) {
      const size_t start = ((size_t)r * channels + c0 + c) * bins + b0;
      for (int b = lane; b < held; b += WARP) {
        y[start + b] = best[c][b];
        if (keep) argmax[start + b] = where[c][b];
      }
    }
  }
}

// A block owns a tile of a channel's plane, in shared memory, and sums there what the RoIs of its image pass to it: dy
// and argmax are read once (once for each tile of larger planes), side by side. The k-th RoI of the image belongs to
// warp k % 4, which adds RoI by RoI and bin by bin to a copy of its own; the copies are added in their order. So the
// sums of an image depend on its own RoIs and their order alone: not on the device, and not on other images.
#define TILE (11776 / sizeof(Dtype))  // cells: four copies and the lists are 48 KB, which every GPU grants
#define LISTED 128  // RoIs that a warp looks up at a time
#define BATCH 8     // bins a lane loads at a time, to have enough loads in flight

struct Batch {
  int cell[BATCH];  // of the tile, if it is one of [0, size)
  Dtype value[BATCH];
};
struct Cursor { int slot, bin; };  // which bin of which listed RoI

// Load the bins of a lane from its cursor on, each 32 further than the one before. `stride`: bins of a RoI in all
// channels. Past the end RoI 0 is loaded, in vain: without a branch all loads are on their way at once.
__device__ inline void load(
    Batch& batch, Cursor& at, const int* list, int listed, int stride, int bins, int first, const Dtype* dy,
    const int* argmax) {
#pragma unroll
  for (int u = 0; u < BATCH; ++u) {
    const bool real = at.slot < listed;
    const long long i = (long long)(real ? list[at.slot] : 0) * stride + at.bin;
    const int cell = argmax[i] - first;
    batch.cell[u] = real ? cell : -1;
    batch.value[u] = dy[i];
    at.slot += WARP / bins;
    at.bin += WARP % bins;
    if (at.bin >= bins) {
      at.bin -= bins;
      ++at.slot;
    }
  }
}

// Add a batch of a warp to its sums. Lanes with the same cell take turns, the lowest one first.
__device__ inline void add(const Batch& batch, Dtype* sum, int size, int lane) {
  int turn[BATCH];
#pragma unroll
  for (int u = 0; u < BATCH; ++u) {
    const unsigned int same = __match_any_sync(FULL, batch.cell[u]);
    turn[u] = batch.cell[u] >= 0 && batch.cell[u] < size ? __popc(same & ((1u << lane) - 1)) : -1;
  }
#pragma unroll
  for (int u = 0; u < BATCH; ++u) {
    int now = 0;
    do {
      if (turn[u] == now) sum[batch.cell[u]] += batch.value[u];
      __syncwarp();
    } while (__any_sync(FULL, turn[u] > now++));
  }
}

// How many of the first `count` RoIs of an image belong to a warp.
__device__ inline int share(int count, int warp) { return (count + WARPS - 1 - warp) / WARPS; }

extern "C" __global__ void __launch_bounds__(WARPS * WARP) roi_pool_backward(
    const Dtype* dy, const int* argmax, const Dtype* rois, const int num_rois, const int images, const int channels,
    const int cells, const int bins, Dtype* dx) {
  const int tile = TILE, tiles = (cells + tile - 1) / tile;
  __shared__ Dtype sums[WARPS][TILE];
  __shared__ int lists[WARPS][LISTED];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int image = blockIdx.y, channel = blockIdx.x / tiles;
  const int first = blockIdx.x % tiles * tile, size = min(tile, cells - first);
  Dtype* const sum = sums[warp];
  int* const list = lists[warp];
  for (int i = lane; i < size; i += WARP) sum[i] = 0;
  dy += channel * bins;
  argmax += channel * bins;

  for (int r0 = 0, seen = 0; r0 < num_rois;) {  // `seen` RoIs of the image are among the first r0
    const int before = share(seen, warp);
    for (; r0 < num_rois && share(seen, warp) - before <= LISTED - WARP / WARPS; r0 += WARP) {
      const bool here = r0 + lane < num_rois && image_of(rois + 5 * (r0 + lane), images) == image;
      const unsigned int found = __ballot_sync(FULL, here);
      const int k = seen + __popc(found & ((1u << lane) - 1));
      if (here && k % WARPS == warp) list[k / WARPS - before] = r0 + lane;
      seen += __popc(found);
    }
    __syncwarp();
    const int listed = share(seen, warp) - before;
    Cursor at = {lane / bins, lane % bins};
    Batch batch, next;
    load(batch, at, list, listed, channels * bins, bins, first, dy, argmax);
    for (int done = 0; done < listed * bins; done += BATCH * WARP) {
      load(next, at, list, listed, channels * bins, bins, first, dy, argmax);  // on its way while `batch` is added
      add(batch, sum, size, lane);
      batch = next;
    }
    __syncwarp();
  }
  __syncthreads();

  Dtype* const target = dx + ((size_t)image * channels + channel) * cells + first;
  for (int i = threadIdx.x; i < size; i += WARPS * WARP) {
    Dtype total = sums[0][i];
    for (int w = 1; w < WARPS; ++w) total += sums[w][i];
    target[i] = total;
  }
}
