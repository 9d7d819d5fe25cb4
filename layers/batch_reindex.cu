// Rows of a matrix by their numbers: BatchReindex, Embed.

// One thread per element of y (M, K): y[i] = x[index[i]] + bias. A number out of range reads nothing and gives NaN.
extern "C" __global__ void gather_rows(
    const int n, const Dtype* x, const Dtype* index, const int rows, const int columns, const Dtype* bias,
    const int has_bias, Dtype* y) {
  CUDA_KERNEL_LOOP(i, n) {
    const Dtype number = index[i / columns];
    if (number > -1 && number < rows) {  // what a cast to int puts into [0, rows)
      const Dtype value = x[(long long)number * columns + i % columns];
      y[i] = has_bias ? value + bias[i % columns] : value;
    } else {
      y[i] = log(Dtype(-1));
    }
  }
}

// One thread per element of dx (R, K): += the rows order[starts[r]], ..., order[starts[r + 1] - 1] of dy.
extern "C" __global__ void add_rows(
    const int n, const Dtype* dy, const int* order, const int* starts, const int columns, Dtype* dx) {
  CUDA_KERNEL_LOOP(i, n) {
    const int r = i / columns;
    Dtype sum = dx[i];
    for (int m = starts[r]; m < starts[r + 1]; ++m) sum += dy[(long long)order[m] * columns + i % columns];
    dx[i] = sum;
  }
}
