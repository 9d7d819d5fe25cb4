// What every .cu of a layer may count on. Dtype is float or double: a typedef put before this file.
// One thread handles the elements i, i + stride, ...: a kernel is right for any launch shape.
#define CUDA_KERNEL_LOOP(i, n) \
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += blockDim.x * gridDim.x)
