"""Both console scripts: every command is found, says what it does, and fails with a status."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe_lite.cli import console as caffe
from caffe_lite.console import Console
from caffe_lite.errors import CaffeError
from caffe_lite.fast_rcnn.cli import console as fast_rcnn

COMMANDS = [(console, name) for console in (caffe, fast_rcnn) for name in console.command_names()]


@pytest.mark.parametrize(
    ("console", "name"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value.prog
)
def test_help_shows_an_example(console: Console, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        console.main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"\n  {console.prog} {name}" in text or f"\n    {console.prog} {name}" in text


@pytest.mark.parametrize("console", [caffe, fast_rcnn], ids=["caffe-lite", "fast-rcnn"])
def test_an_unknown_command_is_refused(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        console.main(["trian"])
    assert stop.value.code == 2
    assert "trian" in capsys.readouterr().err


def test_dashes_and_underscores_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("compute_image_mean", "compute-image-mean"):
        assert caffe.main([name, str(tmp_path / "absent")]) == 1
        assert f"caffe-lite: error: {tmp_path / 'absent'}" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--quiet"]])
def test_quiet_shows_no_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png 0\n")
    assert (
        caffe.main(["convert_imageset", str(tmp_path), str(tmp_path / "list.txt"), str(tmp_path / "db"), *flags]) == 0
    )
    assert ("image/s" in capfd.readouterr().err) == (not flags)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(CaffeError):
        caffe.main(["compute_image_mean", str(tmp_path / "absent"), "--debug"])


@pytest.mark.parametrize("console", [caffe, fast_rcnn], ids=["caffe-lite", "fast-rcnn"])
def test_completion_is_a_script_of_the_shell(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="completion needs its extra")
    assert console.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert all(name in script for name in console.command_names())
