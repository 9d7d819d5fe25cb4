// Lets g++ compile the .cu of a layer and run it on the host, one CUDA thread after the other.
#undef _FORTIFY_SOURCE  // it takes a jump to another fiber's stack for an error
#include <setjmp.h>
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

// The threads of a block are fibers: each runs up to the next call at which it waits for others, then the next one
// does. After the first entry they are switched by longjmp: swapcontext asks the kernel for the signal mask each time.
const int STACK = 1 << 16, WARP = 32;
struct Fiber {
  ucontext_t entry;
  jmp_buf resume;
  std::vector<char> stack;
  bool entered;
  int exchanges;   // with its warp, so far
  const char* at;  // the call at which it waits; null at its end
};
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static std::function<void()> body;
static int running;
static const char *const BARRIER = "__syncthreads()", *const PART = "a warp intrinsic for a part of a warp";

static void enter() {
  body();
  fibers[running].at = nullptr;
  _longjmp(scheduler, 1);
}

static void resume(int i) {
  running = threadIdx.x = i;
  if (_setjmp(scheduler)) return;
  if (fibers[i].entered) _longjmp(fibers[i].resume, 1);
  fibers[i].entered = true;
  setcontext(&fibers[i].entry);
}

// A thread waits until the others have come here.
static void wait(const char* name) {
  Fiber& self = fibers[running];
  self.at = name;
  if (!_setjmp(self.resume)) _longjmp(scheduler, 1);
}

// Where some of the fibers [first, last) wait in vain for the others; null if all are at one place.
static const char* parted(int first, int last) {
  for (int i = first; i < last; ++i)
    if (fibers[i].at != fibers[first].at || fibers[i].at == PART) return fibers[i].at ? fibers[i].at : fibers[first].at;
  return nullptr;
}

// Run all threads of a block to their ends, each warp from one __syncthreads to the next. Returns what `parted` says.
static const char* run_block(int threads, bool descending) {
  fibers.resize(threads);
  for (Fiber& fiber : fibers) {
    fiber.stack.resize(STACK);
    fiber.entered = false;
    fiber.exchanges = 0;
    getcontext(&fiber.entry);
    fiber.entry.uc_stack.ss_sp = fiber.stack.data();
    fiber.entry.uc_stack.ss_size = STACK;
    fiber.entry.uc_link = nullptr;
    makecontext(&fiber.entry, enter, 0);
  }
  const int warps = (threads + WARP - 1) / WARP;
  do {
    for (int k = 0; k < warps; ++k) {
      const int first = (descending ? warps - 1 - k : k) * WARP, last = std::min(first + WARP, threads);
      do {
        for (int i = first; i < last; ++i) resume(descending ? first + last - 1 - i : i);
        if (const char* name = parted(first, last)) return name;
      } while (fibers[first].at && fibers[first].at != BARRIER);
    }
    if (const char* name = parted(0, threads)) return name;
  } while (fibers[0].at);
  return nullptr;
}

// Run the kernel that ``call`` calls. Null, or the call at which some threads wait in vain for the rest.
static const char* launch(Dim grid, int threads, bool barriers, bool descending, std::function<void()> call) {
  gridDim = grid;
  blockDim = Dim{threads, 1, 1};
  body = call;
  const int blocks = grid.x * grid.y * grid.z;
  for (int i = 0; i < blocks; ++i) {
    const int block = descending ? blocks - 1 - i : i;
    blockIdx = Dim{block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
    poison_shared_memory();
    if (barriers) {
      if (const char* name = run_block(threads, descending)) return name;
      continue;
    }
    for (int j = 0; j < threads; ++j) {
      threadIdx.x = descending ? threads - 1 - j : j;
      body();
    }
  }
  return nullptr;
}

// What the lanes of the running warp pass at the call of this name. Two sets: a lane may be on its way to the next call
// before the others have read.
template <class T> static const T* exchange(const char* name, unsigned mask, T value) {
  static T held[2][1024];
  const int first = running / WARP * WARP;
  T* const set = held[fibers[running].exchanges++ % 2];
  set[running] = value;
  wait(mask == 0xffffffffu && first + WARP <= blockDim.x ? name : PART);
  return set + first;
}

template <class Same> static unsigned lanes_where(Same same) {
  unsigned found = 0;
  for (int lane = 0; lane < WARP; ++lane) found |= unsigned(same(lane)) << lane;
  return found;
}
}  // namespace cuda_on_host

static void __syncthreads() { cuda_on_host::wait(cuda_on_host::BARRIER); }
static void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_host::exchange("__syncwarp()", mask, 0); }
static unsigned __ballot_sync(unsigned mask, int predicate) {
  const int* all = cuda_on_host::exchange("__ballot_sync()", mask, predicate);
  return cuda_on_host::lanes_where([=](int lane) { return all[lane] != 0; });
}
static int __any_sync(unsigned mask, int predicate) {
  const int* all = cuda_on_host::exchange("__any_sync()", mask, predicate);
  return cuda_on_host::lanes_where([=](int lane) { return all[lane] != 0; }) != 0;
}
template <class T> static unsigned __match_any_sync(unsigned mask, T value) {
  const T* all = cuda_on_host::exchange("__match_any_sync()", mask, value);
  return cuda_on_host::lanes_where([=](int lane) { return all[lane] == value; });
}
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

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
