// SmoothL1Loss, one thread per element. Weights that the layer does not have are not read.

extern "C" __global__ void smooth_l1_forward(
    const int n, const Dtype* prediction, const Dtype* target, const Dtype* inside, const Dtype* outside,
    const int bottoms, const Dtype sigma2, Dtype* losses) {
  CUDA_KERNEL_LOOP(i, n) {
    Dtype d = prediction[i] - target[i];
    if (bottoms > 2) d *= inside[i];
    const Dtype size = d < 0 ? -d : d;
    const Dtype loss = size < 1 / sigma2 ? Dtype(0.5) * sigma2 * d * d : size - Dtype(0.5) / sigma2;
    losses[i] = bottoms > 3 ? outside[i] * loss : loss;
  }
}

extern "C" __global__ void smooth_l1_backward(
    const int n, const Dtype* prediction, const Dtype* target, const Dtype* inside, const Dtype* outside,
    const int bottoms, const Dtype sigma2, const Dtype scale, const Dtype* loss_weight, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    Dtype d = prediction[i] - target[i];
    if (bottoms > 2) d *= inside[i];
    const Dtype size = d < 0 ? -d : d;
    const Dtype slope = size >= 1 / sigma2 ? (d > 0 ? Dtype(1) : Dtype(-1)) : sigma2 * d;  // NaN: the latter
    dx[i] = scale * loss_weight[0] * (bottoms > 3 ? slope * inside[i] * outside[i] : slope);
  }
}
