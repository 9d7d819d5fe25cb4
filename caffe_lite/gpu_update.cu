// SGD's whole update in one pass, one thread for each number: scale, regularise, momentum, subtract; in the order, and
// but for fused multiply-adds with the rounding, of caffe_lite.update and solvers/sgd.py.

extern "C" __global__ void sgd_update(
    const int n, const Dtype scale, const Dtype share, const Dtype decay, const int l1, const Dtype rate,
    const Dtype momentum, const int subtract, Dtype* weight, Dtype* gradient, Dtype* history) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype w = weight[i];
    const Dtype penalty = !l1 ? w : w > 0 ? Dtype(1) : w < 0 ? Dtype(-1) : w;  // a NaN stays
    Dtype g = gradient[i] * scale * share;
    if (decay != 0) g += decay * penalty;
    const Dtype h = momentum * history[i] + rate * g;
    history[i] = h;
    gradient[i] = h;
    if (subtract) weight[i] = w - h;
  }
}
