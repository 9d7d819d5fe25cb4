// Dropout: one thread per counter of Philox4x32-10, that is for four elements.
// The key's two words and the threshold are unsigned; they arrive as int, bit for bit.
extern "C" __global__ void dropout_forward(
    const int n, const int count, const Dtype* x, const int key0, const int key1, const int threshold,
    const Dtype scale, Dtype* y, unsigned char* mask) {
  CUDA_KERNEL_LOOP(group, n) {
    unsigned int words[4] = {(unsigned int)group, 0, 0, 0};  // a blob has less than 2^31 elements
    philox4x32(words, (unsigned int)key0, (unsigned int)key1);
    for (int j = 0; j < 4 && 4 * group + j < count; ++j) {
      const int i = 4 * group + j;
      mask[i] = words[j] > (unsigned int)threshold;
      y[i] = x[i] * mask[i] * scale;
    }
  }
}
