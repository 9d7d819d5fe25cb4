"""``caffe-lite detect`` on a net whose output is the mean colour of its input."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from caffe_lite.cli import main
from caffe_lite.errors import DataError
from caffe_lite.windows import read_image_names, read_windows, write_detections
from tests.test_classify_command import make_net

PLAIN = ["--crop_mode", "list", "--mean_file", "", "--context_pad", "0"]


@pytest.fixture
def net(tmp_path: Path) -> list[str]:
    return make_net(tmp_path)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """Left half red, right half blue."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30, 2] = 255
    image[:, 30:, 0] = 255
    path = str(tmp_path / "halves, two.png")  # a comma, which a CSV has to quote
    cv2.imwrite(path, image)
    return path


@pytest.fixture
def windows(tmp_path: Path, photo: str) -> str:
    path = tmp_path / "windows.csv"
    path.write_text(f'filename,xmin,ymin,xmax,ymax\n"{photo}",0,0,30,40\n"{photo}",30,10,60,40\n"{photo}",15,0,45,40\n')
    return str(path)


EXPECTED = [[0, 0, 255], [255, 0, 0], [127.5, 0, 127.5]]  # B, G, R of the three windows


def test_windows_of_a_csv_to_a_csv(net, windows: str, photo: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.csv"
    assert main(["detect", windows, str(out), *net, *PLAIN]) == 0
    assert "Processed 3 windows" in capsys.readouterr().out
    with open(out, newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["filename", "ymin", "xmin", "ymax", "xmax", "class0", "class1", "class2"]
    assert [row[:5] for row in rows] == [
        [photo, "0", "0", "40", "30"],
        [photo, "10", "30", "40", "60"],
        [photo, "0", "15", "40", "45"],
    ]
    np.testing.assert_allclose([[float(v) for v in row[5:]] for row in rows], EXPECTED, atol=1)


def test_windows_of_a_csv_to_hdf5(net, windows: str, photo: str, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    assert main(["detect", windows, str(out), *net, *PLAIN, "--quiet"]) == 0
    with h5py.File(out) as file:
        assert list(file["filename"].asstr()) == [photo] * 3
        assert file["window"][:].tolist() == [[0, 0, 40, 30], [10, 30, 40, 60], [0, 15, 40, 45]]
        np.testing.assert_allclose(file["prediction"][:], EXPECTED, atol=1)


def test_of_a_mean_image_the_mean_of_each_channel_counts(net, windows: str, tmp_path: Path) -> None:
    mean = np.zeros((3, 5, 5))
    mean[:, 0] = np.array([10, 20, 30])[:, np.newaxis]  # a fifth of the rows, so 2, 4, 6 on average
    np.save(tmp_path / "mean.npy", mean)
    out = tmp_path / "out.h5"
    options = ["--crop_mode", "list", "--context_pad", "0", "--mean_file", str(tmp_path / "mean.npy")]
    assert main(["detect", windows, str(out), *net, *options]) == 0
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["prediction"][:2], [[-2, -4, 249], [253, -4, -6]], atol=1)


def test_context_is_shown_by_default(net, windows: str, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    options = ["--crop_mode", "list", "--mean_file", "", "--context_pad", "2"]
    assert main(["detect", windows, str(out), *net, *options]) == 0
    with h5py.File(out) as file:
        blue, _, red = file["prediction"][0]
    assert blue > 20, "around the red half there is blue, which the window alone does not hold"
    assert red < 200


def test_selective_search_finds_the_windows(net, photo: str, tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text(f"{photo}\n\n")
    out = tmp_path / "out.csv"
    assert main(["detect", str(tmp_path / "images.txt"), str(out), *net, "--context_pad", "0", "--mean_file", ""]) == 0
    with open(out, newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = {tuple(int(row[name]) for name in ("ymin", "xmin", "ymax", "xmax")) for row in rows}
    assert (0, 0, 40, 30) in found and (0, 30, 40, 60) in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("filename,ymin,xmin,ymax\na.png,0,0,1\n", r":1: expected a line with the columns .*xmax; got filename"),
        (
            "filename,ymin,xmin,ymax,xmax\na.png,0,0,1,1\nb.png,0,zero,1,1\n",
            r":3: expected numbers .* got 0, zero, 1, 1",
        ),
        ("filename,ymin,xmin,ymax,xmax\na.png,0,0\n", r":2: expected numbers .* got 0, 0, None, None"),
        ("filename,ymin,xmin,ymax,xmax\n,0,0,1,1\n", r":2: no filename"),
        ("filename,ymin,xmin,ymax,xmax\n", r"no line after"),
        ("", r":1: expected a line with the columns"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "windows.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_windows(str(path))


def test_images_stay_in_their_order_and_windows_with_their_image(tmp_path: Path) -> None:
    path = tmp_path / "windows.csv"
    path.write_text("filename, ymin, xmin, ymax, xmax\nb,0,1,2,3\na,4,5,6,7.0\nb,8,9,10,11\n")
    (b, of_b), (a, of_a) = read_windows(str(path))
    assert (b, of_b.tolist(), a, of_a.tolist()) == ("b", [[0, 1, 2, 3], [8, 9, 10, 11]], "a", [[4, 5, 6, 7]])
    assert read_image_names(str(path)) == ["b", "a"]


def test_no_detection_is_an_empty_file(tmp_path: Path) -> None:
    write_detections(str(tmp_path / "none.csv"), [])
    assert (tmp_path / "none.csv").read_text() == "filename,ymin,xmin,ymax,xmax\n"
    write_detections(str(tmp_path / "none.h5"), [])
    with h5py.File(tmp_path / "none.h5") as file:
        assert file["window"].shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images.txt", "out.txt"], "written as .csv or .h5"),
        (["images.txt", "out.csv", "--crop_mode", "list"], "--crop_mode list takes a .csv"),
        (["photo.png", "out.csv"], "selective_search takes a .csv or, without windows, a .txt"),
        (["absent.csv", "out.csv", "--crop_mode", "list"], "absent.csv: cannot be read as text"),
    ],
)
def test_wrong_files_are_refused(net, tmp_path: Path, monkeypatch, capsys, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.txt").write_text("a.png\n")
    assert main(["detect", *arguments, *net]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
