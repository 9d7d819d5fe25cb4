// Lets g++ compile the .cu of a layer and run it on the host, one CUDA thread after the other.
#include <algorithm>
#include <cmath>
#define __global__
#define __device__
#define __host__
#define __restrict__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __CUDA_ON_HOST__
using std::abs; using std::ceil; using std::exp; using std::fabs; using std::floor; using std::fmax; using std::fmin;
using std::isfinite; using std::isinf; using std::isnan; using std::log; using std::log1p; using std::max; using std::min;
using std::pow; using std::round; using std::sqrt; using std::tanh; using std::trunc;

struct Dim { int x, y, z; };
static Dim blockIdx{0, 0, 0}, threadIdx{0, 0, 0}, blockDim{1, 1, 1}, gridDim{1, 1, 1};
extern "C" void caffe_lite_set_thread(int block, int thread, int blocks, int threads) {
  blockIdx.x = block; threadIdx.x = thread; gridDim.x = blocks; blockDim.x = threads;
}

// The CUDA intrinsics that pin the rounding of one operation (no fused multiply-add).
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
template <class T> static inline T __ldg(const T* p) { return *p; }
