"""A small set of graded answers that comes with minisbert, written for it.

Each row is a question, a reference answer, a student's answer and a grade from 0 to 5. Of the held-out answers some are
to questions of the training rows, and some to questions that do not occur there.
"""

from __future__ import annotations

from pathlib import Path

GRADED_ANSWERS_TRAIN = Path(__file__).with_name("graded_answers_train.tsv")
GRADED_ANSWERS_HELDOUT = Path(__file__).with_name("graded_answers_heldout.tsv")
