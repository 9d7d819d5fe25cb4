// Dropout: one thread per counter of Philox4x32-10, that is for four elements.

__device__ inline void philox4x32(unsigned int c[4], unsigned int k0, unsigned int k1) {
  for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = 0xD2511F53ULL * c[0], p1 = 0xCD9E8D57ULL * c[2];
    c[0] = (unsigned int)(p1 >> 32) ^ c[1] ^ k0;
    c[1] = (unsigned int)p1;
    c[2] = (unsigned int)(p0 >> 32) ^ c[3] ^ k1;
    c[3] = (unsigned int)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

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
