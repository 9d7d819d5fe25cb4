"""Image lists: a text file with an image and its label on each line, ``path label``.

The label is what follows the last space, so paths may contain spaces.
"""

from __future__ import annotations

from caffe_lite.errors import DataError


def read_lines(path: str, what: str) -> list[str]:
    """The lines of a text file without what is blank at their ends; DataError if it cannot be read."""
    if not path:
        raise DataError(f"the source is empty: give the path of {what}")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:  # file names may be any bytes
            return [line.rstrip() for line in stream]
    except OSError as error:
        raise DataError(f"{path}: cannot read {what}: {error.strerror or error}") from error


def read_image_list(path: str) -> list[tuple[str, int]]:
    """(image path, label) of each line of the list; lines that are blank are passed over.

    Raises:
        DataError: the file cannot be read, has no image, or a line has no label.
    """
    images = []
    for number, line in enumerate(read_lines(path, "the list of images"), start=1):
        if not line:
            continue
        image, _, label = line.rpartition(" ")
        try:
            images.append((image.rstrip(), int(label)))
        except ValueError:
            image = ""
        if not image:
            raise DataError(f"{path}:{number}: expected an image path, a space and a whole-number label, got {line!r}")
    if not images:
        raise DataError(f"{path}: the list of images is empty")
    return images
