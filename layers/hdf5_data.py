"""HDF5Data: batches out of HDF5 files, each top from the dataset of its name.

Behaves as Caffe's HDF5DataLayer. N = batch_size of hdf5_data_param:
    top[i]  (N, ...)  rows of the dataset named like the top, whose shape is (rows, ...)
source is a text file with the path of an HDF5 file on each line. A file's datasets have the same number of rows, of
integers or floating-point numbers. A file is read whole, batches go on from one file into the next, and after the
last comes the first. shuffle draws the order of the files for each pass, then of the rows as a file begins, from a
generator that is seeded by one draw from the process's stream. There is no gradient.

transform_param is refused, as in Caffe. Differs from it: file names may contain spaces; files whose rows differ in
shape are an error instead of foreign memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe_lite.data.image_list import read_lines
from caffe_lite.data.prefetch import generator_from, generator_state, set_generator_state
from caffe_lite.errors import DataError, did_you_mean
from caffe_lite.layer import Blobs, Flags, Layer
from caffe_lite.registry import register_layer


@register_layer("HDF5Data")
class HDF5Data(Layer):
    exact_bottoms, min_tops = 0, 1

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        p = self.param.hdf5_data_param
        self.check(not self.param.HasField("transform_param"), "does not transform data: remove transform_param")
        self.check(p.batch_size > 0, "batch_size must be > 0: give it in hdf5_data_param")
        self.batch_size = p.batch_size
        self.files = [line for line in read_lines(p.source, "the list of HDF5 files") if line]
        if not self.files:
            raise DataError(f"{p.source}: the list of HDF5 files is empty")
        self.rng = generator_from(self.device.rng) if p.shuffle else None
        self.names = list(self.param.top)
        self.loaded = ""
        self.arrays: list[np.ndarray] = []
        self.shapes: list[tuple[int, ...]] = []
        self._begin_pass()
        self._begin_file(0)
        for blob, shape in zip(top, self.shapes, strict=True):
            blob.reshape(self.batch_size, *shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass  # forward does it

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        gpu = self.device.is_gpu
        for blob, shape in zip(top, self.shapes, strict=True):
            blob.reshape(self.batch_size, *shape)
        batch = [np.empty(blob.shape, self.dtype) if gpu else blob.data for blob in top]
        filled = 0
        while filled < self.batch_size:
            self._go_on()
            count = min(self.batch_size - filled, len(self.arrays[0]) - self.row)
            rows = slice(self.row, self.row + count)
            for part, array in zip(batch, self.arrays, strict=True):
                part[filled : filled + count] = array[rows if self.row_order is None else self.row_order[rows]]
            filled += count
            self.row += count
        if gpu:
            for blob, part in zip(top, batch, strict=True):
                blob.data[...] = self.xp.asarray(part)

    def backward(self, top: Blobs, propagate_down: Flags, bottom: Blobs) -> None:
        pass

    # ---- where we are

    def _go_on(self) -> None:
        """If the file is at its end, begin the next."""
        if self.row < len(self.arrays[0]):
            return
        if self.file + 1 == len(self.files):
            self._begin_pass()
            self._begin_file(0)
        else:
            self._begin_file(self.file + 1)

    def _begin_pass(self) -> None:
        self.pass_drawn_from = generator_state(self.rng)
        self.file_order = None if self.rng is None else self.rng.permutation(len(self.files))

    def _begin_file(self, file: int) -> None:
        """Begin number ``file`` of the pass."""
        self._load(self.files[file if self.file_order is None else self.file_order[file]])
        self.rows_drawn_from = generator_state(self.rng)
        self.row_order = None if self.rng is None else self.rng.permutation(len(self.arrays[0]))
        self.file, self.row = file, 0

    def state(self) -> dict[str, Any]:
        """What the next forward depends on, fit for JSON: for an exact resume."""
        return {
            "files": len(self.files),
            "file": self.file,
            "row": self.row,
            "pass": self.pass_drawn_from,
            "rows": self.rows_drawn_from,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to ``state()``.

        Raises:
            DataError: the state is of other data; the layer is unchanged.
        """
        before = self.state()
        try:
            self._go_to(state)
        except (KeyError, TypeError, ValueError) as error:  # DataError is a ValueError too
            self._go_to(before)
            why = str(error) if isinstance(error, DataError) else f"it is damaged ({error!r})"
            raise DataError(self.explain(f"the saved state cannot be used: {why}")) from error

    def _go_to(self, state: dict[str, Any]) -> None:
        if state["files"] != len(self.files) or not 0 <= state["file"] < len(self.files):
            raise DataError(f"it is of a list of {state['files']} files, this one has {len(self.files)}")
        set_generator_state(self.rng, state["pass"])
        self._begin_pass()
        set_generator_state(self.rng, state["rows"])
        self._begin_file(state["file"])
        if not 0 <= state["row"] <= len(self.arrays[0]):
            raise DataError(f"{self.loaded}: it is at row {state['row']}, the file has {len(self.arrays[0])}")
        self.row = state["row"]

    # ---- files

    def _load(self, path: str) -> None:
        """Read the datasets of ``path``, unless they are the ones here."""
        if path == self.loaded:
            return
        arrays = read_datasets(path, self.names, self.dtype)
        shapes = [array.shape[1:] for array in arrays]
        for name, shape, first in zip(self.names, shapes, self.shapes, strict=False):
            if shape != first:
                raise DataError(
                    f"{path}: the rows of dataset {name!r} have shape {shape}, those of {self.loaded} {first}; "
                    "all files must agree"
                )
        self.arrays, self.shapes, self.loaded = arrays, shapes, path


def read_datasets(path: str, names: list[str], dtype: np.dtype) -> list[np.ndarray]:
    """The datasets ``names`` of the HDF5 file ``path``, as ``dtype``; they have as many rows, and at least one.

    Raises:
        DataError: the file cannot be read, or a dataset is missing or not like that.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            arrays = [_read_dataset(file, path, name, dtype) for name in names]
    except OSError as error:
        raise DataError(f"{path}: not an HDF5 file that can be read: {error}") from error
    rows = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(rows.values())) > 1 or not min(rows.values()):
        counts = ", ".join(f"{name!r} {count}" for name, count in rows.items())
        raise DataError(f"{path}: all datasets must have the same number of rows, at least one; got {counts}")
    return arrays


def _read_dataset(file: Any, path: str, name: str, dtype: np.dtype) -> np.ndarray:
    import h5py

    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        here = ", ".join(file) or "none"
        raise DataError(f"{path}: has no dataset {name!r}{did_you_mean(name, file)}; it has {here}")
    if dataset.dtype.kind not in "iuf" or not dataset.shape:
        raise DataError(
            f"{path}: dataset {name!r} must hold integers or floating-point numbers, a row for each item; it has "
            f"shape {dataset.shape} and type {dataset.dtype}"
        )
    array = np.empty(dataset.shape, dtype=dtype)
    if array.size:
        dataset.read_direct(array)
    return array
