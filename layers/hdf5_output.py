"""HDF5Output: writes two bottoms to an HDF5 file, which HDF5Data can read.

Behaves as Caffe's HDF5OutputLayer, N items a batch:
    bottom[0]  (N, ...)  dataset "data"
    bottom[1]  (N, ...)  dataset "label"
Both datasets have four axes, missing ones of size 1. The file is emptied when the net is built. There is no gradient.

Differs from Caffe: a second forward appends its rows, where Caffe stops because the datasets exist; the file is
closed after each forward, so that it can be read at any time. On a GPU each forward waits for the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_lite.errors import DataError
from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("HDF5Output")
class HDF5Output(Layer):
    exact_bottoms, exact_tops = 2, 0

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.path = self.param.hdf5_output_param.file_name
        self.check(self.path, "needs the name of the file: hdf5_output_param { file_name: ... }")
        self._open("w").close()

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        data, label = (blob.shape for blob in bottom)
        for i, shape in enumerate((data, label)):
            self.check_shape(1 <= len(shape) <= 4, f"bottom {i} must have 1 to 4 axes, got shape {shape}")
        self.check_shape(data[0] == label[0], f"bottoms must have as many items, got shapes {data} and {label}")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with self._open("a") as file:
            for name, blob in zip(("data", "label"), bottom, strict=True):
                rows = self.device.to_host(blob.data).reshape(blob.shape + (1,) * (4 - len(blob.shape)))
                self._append(file, name, rows)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass

    def _open(self, mode: str) -> Any:
        import h5py

        try:
            return h5py.File(self.path, mode)
        except OSError as error:
            raise DataError(f"{self.path}: the HDF5 file cannot be written: {error}") from error

    def _append(self, file: Any, name: str, rows: np.ndarray) -> None:
        if name not in file:
            chunk = tuple(max(size, 1) for size in rows.shape)
            file.create_dataset(name, data=rows, chunks=chunk, maxshape=(None,) * 4)
            return
        dataset = file[name]
        if dataset.shape[1:] != rows.shape[1:]:
            raise DataError(
                f"{self.path}: the rows of {name!r} have shape {rows.shape[1:]}, those written before "
                f"{dataset.shape[1:]}: a file holds one shape"
            )
        before = len(dataset)
        dataset.resize(before + len(rows), axis=0)
        dataset[before:] = np.ascontiguousarray(rows)
