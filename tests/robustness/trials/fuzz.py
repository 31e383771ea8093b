"""Files made to do harm: every target of fuzzing.py for a while."""

from __future__ import annotations

import argparse

import fuzzing

from trials import Trial

SECONDS, QUICK_SECONDS = 20.0, 1.0  # for each target


def run(options: argparse.Namespace) -> list[Trial]:
    """Feed every target with wrong files."""
    trials = []
    for name, target in fuzzing.TARGETS.items():
        outcome = fuzzing.run(target, seconds=QUICK_SECONDS if options.quick else SECONDS, seed=options.seed)
        lost = outcome.failures[0][1] if outcome.failures else "nothing"
        survived = outcome.inputs - len(outcome.failures)
        trials.append(Trial(f"wrong files: {name}", outcome.inputs, survived, lost[:100]))
    return trials
