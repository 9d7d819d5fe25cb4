// Accuracy. The verdict on a row is 1: right, 0: wrong, -1: ignored, -2: no label.

// One thread per row.
extern "C" __global__ void accuracy_judge(
    const int n, const Dtype* scores, const Dtype* labels, const int classes, const int inner, const int top_k,
    const int ignore, int* verdicts) {
  CUDA_KERNEL_LOOP(i, n) {
    const int label = (int)labels[i];
    const bool is_number = labels[i] == labels[i];  // the GPU casts a NaN to 0
    if (is_number && label == ignore) {
      verdicts[i] = -1;
    } else if (!is_number || label < 0 || label >= classes) {
      verdicts[i] = -2;
    } else {
      const Dtype* row = scores + i / inner * classes * inner + i % inner;
      const Dtype score = row[label * inner];
      int others = -1;  // the true class scores as high as itself
      for (int c = 0; c < classes; ++c) others += row[c * inner] >= score;
      verdicts[i] = others < top_k && score == score;
    }
  }
}

// One thread per class: the share of its rows that are right, 0 if it has none.
extern "C" __global__ void accuracy_per_class(
    const int n, const int* verdicts, const int rows, const Dtype* labels, Dtype* shares) {
  CUDA_KERNEL_LOOP(c, n) {
    int right = 0, total = 0;
    for (int i = 0; i < rows; ++i) {
      const bool counts = verdicts[i] >= 0 && (int)labels[i] == c;
      right += counts && verdicts[i];
      total += counts;
    }
    shares[c] = total ? Dtype(right) / total : Dtype(0);
  }
}
