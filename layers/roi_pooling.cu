// ROIPooling, one thread per element of the array it writes. Everything up to the bin edges is float,
// whatever Dtype is, and written so that no multiply-add can be fused.

// A coordinate of the image in cells of the feature map, half away from zero.
__device__ inline int to_cell(Dtype coordinate, Dtype spatial_scale) {
  const float limit = 536870912.0f;  // 2^29: sums of cells must fit an int
  const float scaled = float(coordinate) * float(spatial_scale);
  return int(round(min(max(scaled, -limit), limit)));
}

__device__ inline float bin_size(int start, int end, int pooled) { return float(max(end - start + 1, 1)) / float(pooled); }

// [first, last) cells of bin p, clipped to [0, limit).
__device__ inline void bin_cells(int p, int pooled, int start, int end, int limit, int* first, int* last) {
  const float size = bin_size(start, end, pooled);
  *first = min(max(int(floor(float(p) * size)) + start, 0), limit);
  *last = min(max(int(ceil(float(p + 1) * size)) + start, 0), limit);
}

// [first, last) bins that may pass gradient to a cell.
__device__ inline void bins_over(int cell, int pooled, int start, int end, int* first, int* last) {
  const float size = bin_size(start, end, pooled);
  *first = min(max(int(floor(float(cell - start) / size)), 0), pooled);
  *last = min(max(int(ceil(float(cell - start + 1) / size)), 0), pooled);
}

extern "C" __global__ void roi_pool_forward(
    const int n, const Dtype* data, const Dtype* rois, const int images, const int channels, const int height,
    const int width, const int pooled_h, const int pooled_w, const Dtype spatial_scale, Dtype* y, int* argmax) {
  CUDA_KERNEL_LOOP(i, n) {
    const int pw = i % pooled_w, ph = i / pooled_w % pooled_h, c = i / pooled_w / pooled_h % channels;
    const Dtype* roi = rois + i / pooled_w / pooled_h / channels * 5;
    bool usable = roi[0] > -1 && roi[0] < images;
    for (int k = 1; k < 5; ++k) usable = usable && roi[k] - roi[k] == 0;  // neither NaN nor infinite
    if (!usable) {
      y[i] = (roi[0] - roi[0]) / Dtype(0);  // NaN, with no header for its name
      argmax[i] = -1;
      continue;
    }
    int h0, h1, w0, w1;
    bin_cells(ph, pooled_h, to_cell(roi[2], spatial_scale), to_cell(roi[4], spatial_scale), height, &h0, &h1);
    bin_cells(pw, pooled_w, to_cell(roi[1], spatial_scale), to_cell(roi[3], spatial_scale), width, &w0, &w1);
    const Dtype* plane = data + (int(roi[0]) * channels + c) * height * width;
    Dtype best = h0 < h1 && w0 < w1 ? Dtype(-3.402823466e+38F) : Dtype(0);
    int where = -1;
    for (int h = h0; h < h1; ++h)
      for (int w = w0; w < w1; ++w)
        if (plane[h * width + w] > best) best = plane[where = h * width + w];
    argmax[i] = where;
    y[i] = best;
  }
}

// One thread per cell of data: the sum over the regions that contain it runs in their order.
extern "C" __global__ void roi_pool_backward(
    const int n, const Dtype* dy, const int* argmax, const Dtype* rois, const int num_rois, const int channels,
    const int height, const int width, const int pooled_h, const int pooled_w, const Dtype spatial_scale, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const int w = i % width, h = i / width % height, c = i / width / height % channels;
    const int image = i / width / height / channels;
    Dtype sum = 0;
    for (int r = 0; r < num_rois; ++r) {
      const Dtype* roi = rois + 5 * r;
      if (!(roi[0] > -1) || int(roi[0]) != image) continue;
      const int x1 = to_cell(roi[1], spatial_scale), x2 = to_cell(roi[3], spatial_scale);
      if (w < x1 || w > x2) continue;
      const int y1 = to_cell(roi[2], spatial_scale), y2 = to_cell(roi[4], spatial_scale);
      if (h < y1 || h > y2) continue;
      int ph0, ph1, pw0, pw1;
      bins_over(h, pooled_h, y1, y2, &ph0, &ph1);
      bins_over(w, pooled_w, x1, x2, &pw0, &pw1);
      for (int ph = ph0; ph < ph1; ++ph)
        for (int pw = pw0; pw < pw1; ++pw) {
          const int bin = ((r * channels + c) * pooled_h + ph) * pooled_w + pw;
          if (argmax[bin] == h * width + w) sum += dy[bin];
        }
    }
    dx[i] = sum;
  }
}
