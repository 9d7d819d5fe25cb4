// Lets g++ compile the .cu of a layer and run it on the host, one CUDA thread after the other.
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>
#define __global__
#define __device__
#define __host__
#define __shared__ static __attribute__((section("cuda_shared")))  // one place: blocks run one after another
#define __restrict__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_ON_HOST__
using std::abs; using std::ceil; using std::exp; using std::fabs; using std::floor; using std::fmax; using std::fmin;
using std::isfinite; using std::isinf; using std::isnan; using std::log; using std::log1p; using std::max; using std::min;
using std::pow; using std::round; using std::sqrt; using std::tanh; using std::trunc;

struct Dim { int x, y, z; };
static Dim blockIdx{0, 0, 0}, threadIdx{0, 0, 0}, blockDim{1, 1, 1}, gridDim{1, 1, 1};

// Where the linker puts the section of that name; null if no kernel has shared memory.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_cuda_shared[], __stop_cuda_shared[];

namespace cuda_on_host {
// A block finds in shared memory what nobody can work with: NaN, or -1.
static void poison_shared_memory() {
  char* volatile first = __start_cuda_shared;  // volatile: the linker, not the compiler, knows if it is null
  if (first) std::memset(first, 0xff, __stop_cuda_shared - first);
}

// The threads of a block are fibers: each runs up to its next __syncthreads(), then the next one does.
const int STACK = 1 << 16;
struct Fiber { ucontext_t context; std::vector<char> stack; bool done; };
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static std::function<void()> body;
static int running;

static void enter() {
  body();
  fibers[running].done = true;
  swapcontext(&fibers[running].context, &scheduler);
}

// Run all threads of a block to their ends. False if some wait at a barrier that others never reach.
static bool run_block(int threads, bool descending) {
  fibers.resize(threads);
  for (Fiber& fiber : fibers) {
    fiber.stack.resize(STACK);
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (int done = 0; done < threads;) {
    done = 0;
    for (int i = 0; i < threads; ++i) {
      running = threadIdx.x = descending ? threads - 1 - i : i;
      swapcontext(&scheduler, &fibers[running].context);
      done += fibers[running].done;
    }
    if (done > 0 && done < threads) return false;
  }
  return true;
}

// Run the kernel that ``call`` calls. 0, or 1 if a barrier was reached by a part of a block only.
static int launch(Dim grid, int threads, bool barriers, bool descending, std::function<void()> call) {
  gridDim = grid;
  blockDim = Dim{threads, 1, 1};
  body = call;
  const int blocks = grid.x * grid.y * grid.z;
  for (int i = 0; i < blocks; ++i) {
    const int block = descending ? blocks - 1 - i : i;
    blockIdx = Dim{block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
    poison_shared_memory();
    if (barriers) {
      if (!run_block(threads, descending)) return 1;
      continue;
    }
    for (int j = 0; j < threads; ++j) {
      threadIdx.x = descending ? threads - 1 - j : j;
      body();
    }
  }
  return 0;
}
}  // namespace cuda_on_host

static void __syncthreads() {
  using namespace cuda_on_host;
  const int self = running;
  swapcontext(&fibers[self].context, &scheduler);
  threadIdx.x = running = self;
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
