"""The course of a run is shown live on a terminal and in lines elsewhere, and tells the truth."""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterator

import pytest
import torch

from minisbert.training import progress
from minisbert.training.progress import TrainingProgress, duration


def seconds(*moments: float) -> Iterator[float]:
    yield from moments


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    clock = seconds(0, 5, 20, 21, 40)
    with TrainingProgress(1_000, done=100, shown=True, rate=lambda: 2e-5, clock=lambda: next(clock)) as shown:
        for loss in (1.0, 0.5, 0.25, 0.75):
            shown.add(torch.tensor(loss), tokens=1_000)
    assert capsys.readouterr().err.splitlines() == [
        "step 102 of 1,000: loss 0.7500, rate 2.00e-05, 100 tokens/s, 2 h 29 min left",
        "step 104 of 1,000: loss 0.5000, rate 2.00e-05, 100 tokens/s, 2 h 29 min left",
    ]


def test_a_live_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    clock = seconds(0, 0.5, 2, 2.1, 2.2, 9.2)
    with os.fdopen(terminal, "w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with TrainingProgress(50_000, done=49_997, shown=True, rate=lambda: 1e-3, clock=lambda: next(clock)) as shown:
            for loss in (0.3, 0.1, 0.7):
                shown.add(torch.tensor(loss), tokens=12_345)
            with shown.paused("evaluating"):
                pass
        text = os.read(screen, 10_000).decode()
    os.close(screen)
    assert max(map(len, re.split("[\r\n]", text))) <= 80
    assert "49999/50000 [00:00 left, loss=0.2000, rate=1.00e-03, tokens/s=12,345]" in text
    assert "50000/50000" in text
    assert "left, evaluating]" in text
    assert re.search(r"50000/50000 \[.*loss=0.7000.*\]\s*$", text)  # the last step, too


def test_the_time_of_an_evaluation_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    clock = seconds(0, 20, 21, 1021, 1040)
    with TrainingProgress(1_000, done=0, shown=True, rate=lambda: 2e-5, clock=lambda: next(clock)) as shown:
        shown.add(torch.tensor(1.0), tokens=1_000)
        with shown.paused("evaluating"):
            pass
        shown.add(torch.tensor(0.5), tokens=2_000)
    assert capsys.readouterr().err.splitlines() == [
        "step 1 of 1,000: loss 1.0000, rate 2.00e-05, 50 tokens/s, 5 h 33 min left",
        "step 2 of 1,000: loss 0.5000, rate 2.00e-05, 100 tokens/s, 5 h 32 min left",
    ]


def test_nothing_is_kept_or_shown_where_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(10, done=0, shown=False, rate=lambda: pytest.fail("was asked for")) as shown:
        for _ in range(10):
            shown.add(torch.tensor(1.0), tokens=1)
    assert capsys.readouterr().err == ""
    assert shown._losses == []


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(progress, "_LINES", 0.0)
    with TrainingProgress(2, done=0, shown=True, rate=lambda: 0.0) as shown:
        shown.add(torch.tensor(1.0), tokens=1)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7_620, "2 h 7 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations(time: float, text: str) -> None:
    assert duration(time) == text
