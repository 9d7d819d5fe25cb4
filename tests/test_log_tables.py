"""Training logs: rows, seconds, learning rates, and the two commands over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe_lite.cli import main
from caffe_lite.errors import DataError
from caffe_lite.log_tables import CHARTS, curves, parse_lines, read_log

LOG = """\
Log file created at: 2015/12/31 23:59:50
I1231 23:59:50.000000  77 caffe.cpp:217] Using GPUs 0
I1231 23:59:55.500000  77 solver.cpp:279] Solving LeNet
I1231 23:59:55.500001  77 solver.cpp:280] Learning Rate Policy: inv
I1231 23:59:56.000000  77 solver.cpp:337] Iteration 0, Testing net (#0)
I1231 23:59:57.500000  77 solver.cpp:404]     Test net output #0: accuracy = 0.0714
I1231 23:59:57.500000  77 solver.cpp:404]     Test net output #1: loss = 2.3 (* 1 = 2.3 loss)
I1231 23:59:58.500000  77 solver.cpp:228] Iteration 0 (1 iter/s, 3s/100 iters), loss = 2.31
I1231 23:59:58.500000  77 solver.cpp:244]     Train net output #0: loss = 2.31 (* 1 = 2.31 loss)
I1231 23:59:58.500000  77 sgd_solver.cpp:106] Iteration 0, lr = 0.01
I0101 00:00:05.500000  77 solver.cpp:228] Iteration 100 (14 iter/s, 7s/100 iters), loss = 0.5
I0101 00:00:05.500000  77 solver.cpp:244]     Train net output #0: loss = 5e-01 (* 1 = 0.5 loss)
I0101 00:00:05.600000  77 sgd_solver.cpp:106] Iteration 100, lr = 0.00992565
I0101 00:00:06.000000  77 solver.cpp:337] Iteration 100, Testing net (#0)
I0101 00:00:07.000000  77 solver.cpp:404]     Test net output #0: accuracy = 0.9
I0101 00:00:07.000000  77 solver.cpp:404]     Test net output #1: loss = nan (* 1 = nan loss)
I0101 00:00:08.000000  77 solver.cpp:322] Optimization Done.
"""


def test_rows_seconds_and_rates() -> None:
    train, test = parse_lines(LOG.splitlines(), 2015, "log")
    assert train == [
        {"NumIters": 0, "Seconds": 3.0, "LearningRate": 0.01, "loss": 2.31},
        {"NumIters": 100, "Seconds": 10.0, "LearningRate": 0.01, "loss": 0.5},
    ]
    assert [row["NumIters"] for row in test] == [0, 100]
    assert [row["Seconds"] for row in test] == [2.0, 11.5], "over the turn of the year"
    assert test[0]["LearningRate"] == test[1]["LearningRate"] == 0.00992565, "the first is logged late"
    assert test[0]["accuracy"] == 0.0714 and test[1]["loss"] != test[1]["loss"]


def test_what_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent.log: cannot read the log"):
        read_log(tmp_path / "absent.log")
    (tmp_path / "notes").write_text("Iteration 5 of my notes\n")
    with pytest.raises(DataError, match="notes: no line says 'Solving'"):
        read_log(tmp_path / "notes")
    (tmp_path / "cut").write_text("\n".join(LOG.splitlines()[4:]))
    with pytest.raises(DataError, match="cut: an output comes before"):
        read_log(tmp_path / "cut")


def test_parse_log_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "run.log"
    log.write_text(LOG)
    assert main(["parse_log", str(log), str(tmp_path)]) == 0
    assert "run.log.train: 2 rows" in capsys.readouterr().out
    train = (tmp_path / "run.log.train").read_text().splitlines()
    assert train[0] == "NumIters,Seconds,LearningRate,loss" and train[2] == "100,10,0.01,0.5"
    assert (tmp_path / "run.log.test").read_text().splitlines()[0] == "NumIters,Seconds,LearningRate,accuracy,loss"
    assert main(["parse_log", str(log), str(tmp_path / "absent")]) == 1


@pytest.mark.parametrize("chart", range(8))
def test_every_chart(tmp_path: Path, chart: int) -> None:
    (tmp_path / "run.log").write_text(LOG)
    out = tmp_path / "chart.png"
    assert main(["plot-training-log", str(chart), str(out), str(tmp_path / "run.log")]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    ((name, xs, ys),) = curves(chart, tmp_path / "run.log")
    assert len(xs) == len(ys) == 2 and name in ("accuracy", "loss", "LearningRate")
    assert xs == ([0, 100] if "Iters" in CHARTS[chart] else xs)


def test_nothing_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.log").write_text(LOG.replace("accuracy", "score"))
    assert main(["plot_training_log", "0", str(tmp_path / "x.png"), str(tmp_path / "run.log")]) == 1
    assert "the outputs in the log are: score, loss" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
