// What every .cu of a layer may count on. Dtype is float or double: a typedef put before this file.
// One thread handles the elements i, i + stride, ...: a kernel is right for any launch shape. The sum of an i and a
// stride may be 2^31 or more, so it is unsigned; i itself is an int, as what is computed from it may be negative.
#define CUDA_KERNEL_LOOP(i, n)                                                                          \
  for (unsigned int i##_at = blockIdx.x * blockDim.x + threadIdx.x; i##_at < (unsigned int)(n);         \
       i##_at += blockDim.x * gridDim.x)                                                                \
    if (const int i = (int)i##_at; true)

// Philox4x32-10, as caffe_lite.philox: the counter c becomes four random words; k0 and k1 are the key.
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
