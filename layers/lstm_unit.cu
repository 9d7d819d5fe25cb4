// One step of a long short-term memory: one thread per number of its memory, so that the arrays of one step may be
// the same where they meet number by number (gates and act, dc and dc_prev).

__device__ inline Dtype sigmoid(Dtype x) { return Dtype(0.5) * tanh(Dtype(0.5) * x) + Dtype(0.5); }

extern "C" __global__ void lstm_unit_forward(
    const int n, const int dim, const Dtype* c_prev, const Dtype* gates, const Dtype* cont, Dtype* act, Dtype* c,
    Dtype* h) {
  CUDA_KERNEL_LOOP(index, n) {
    const int stream = index / dim, at = stream * 4 * dim + index % dim;
    const Dtype i = sigmoid(gates[at]), f = sigmoid(gates[at + dim]), o = sigmoid(gates[at + 2 * dim]),
                g = tanh(gates[at + 3 * dim]);
    const Dtype memory = f * c_prev[index] * cont[stream] + i * g;
    act[at] = i;
    act[at + dim] = f;
    act[at + 2 * dim] = o;
    act[at + 3 * dim] = g;
    c[index] = memory;
    h[index] = o * tanh(memory);
  }
}

extern "C" __global__ void lstm_unit_backward(
    const int n, const int dim, const Dtype* c_prev, const Dtype* act, const Dtype* cont, const Dtype* c,
    const Dtype* dc, const Dtype* dh, Dtype* dc_prev, Dtype* dgates) {
  CUDA_KERNEL_LOOP(index, n) {
    const int stream = index / dim, at = stream * 4 * dim + index % dim;
    const Dtype i = act[at], f = act[at + dim], o = act[at + 2 * dim], g = act[at + 3 * dim];
    const Dtype tanh_c = tanh(c[index]);
    const Dtype total = dc[index] + dh[index] * o * (1 - tanh_c * tanh_c);  // the whole gradient of c
    dgates[at] = total * g * i * (1 - i);
    dgates[at + dim] = total * c_prev[index] * cont[stream] * f * (1 - f);
    dgates[at + 2 * dim] = dh[index] * tanh_c * o * (1 - o);
    dgates[at + 3 * dim] = total * i * (1 - g * g);
    dc_prev[index] = total * f * cont[stream];
  }
}
