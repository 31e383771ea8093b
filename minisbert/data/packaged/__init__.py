"""A small set of graded answers that comes with minisbert, written for it.

Each row is a question, a reference answer, a student's answer and a grade from 0 to 5. The held-out rows are of other
questions than the training rows.
"""

from __future__ import annotations

from pathlib import Path

GRADED_ANSWERS_TRAIN = Path(__file__).with_name("graded_answers_train.tsv")
GRADED_ANSWERS_HELDOUT = Path(__file__).with_name("graded_answers_heldout.tsv")
