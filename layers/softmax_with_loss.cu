// SoftmaxWithLoss behind the softmax. A label out of range reads nothing and gives NaN.

// 0 to classes - 1; -1: ignored; -2: no label (a NaN, which the GPU would cast to 0, included).
__device__ inline int label_of(Dtype value, int classes, int ignore) {
  const int label = (int)value;
  if (value != value) return -2;
  if (label == ignore) return -1;
  return label >= 0 && label < classes ? label : -2;
}

__device__ inline Dtype not_a_number() { return log(Dtype(-1)); }

// One thread per row: its loss, and whether it counts (1) or not (0).
extern "C" __global__ void softmax_loss_forward(
    const int n, const Dtype* prob, const Dtype* labels, const int classes, const int inner, const int ignore,
    const Dtype smallest, Dtype* losses, Dtype* valid) {
  CUDA_KERNEL_LOOP(i, n) {
    const int label = label_of(labels[i], classes, ignore);
    valid[i] = label != -1;
    losses[i] = label == -1 ? Dtype(0) : not_a_number();
    if (label >= 0) {
      const Dtype p = prob[(i / inner * classes + label) * inner + i % inner];
      losses[i] = -log(p < smallest ? smallest : p);  // a NaN stays
    }
  }
}

// One thread per score.
extern "C" __global__ void softmax_loss_backward(
    const int n, const Dtype* prob, const Dtype* labels, const int classes, const int inner, const int ignore,
    const Dtype* loss_weight, const Dtype* normalizer, Dtype* dx) {
  const Dtype scale = loss_weight[0] / normalizer[0];
  CUDA_KERNEL_LOOP(i, n) {
    const int label = label_of(labels[i / inner / classes * inner + i % inner], classes, ignore);
    const Dtype gradient = i / inner % classes == label ? prob[i] - 1 : prob[i];
    dx[i] = label == -1 ? Dtype(0) : label == -2 ? not_a_number() : scale * gradient;
  }
}
