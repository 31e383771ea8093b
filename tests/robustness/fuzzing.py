"""Everything that reads a file, fed with files that are wrong.

    python tests/robustness/fuzzing.py                        # every target for a minute
    python tests/robustness/fuzzing.py cards --seconds 600 --seed 7

A target is a valid file, a way to change it at random, and the functions that read it. Each input has to end in
success or in one of our own errors (`minisbert.errors`) with a message of one line. Any other exception is a failure,
and so are ten seconds without an end and 500 MB of memory. What does not come back to Python
cannot be interrupted, and is seen by its silence.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from fuzz import models, texts
from fuzz.harness import Outcome, Target, run

TARGETS: dict[str, Target] = {**models.TARGETS, **texts.TARGETS}
_SHOWN = 5  # failures of a target that are told in full

__all__ = ["TARGETS", "Outcome", "Target", "run"]


def main() -> int:
    """Run targets and print what came of them; status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write failing inputs here")
    options = parser.parse_args()
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"got the target {unknown[0]}; expected some of {', '.join(TARGETS)}")
    torch.set_num_threads(1)
    failed = 0
    for name in options.targets or TARGETS:
        started = time.monotonic()
        outcome = run(TARGETS[name], seconds=options.seconds, seed=options.seed)
        failed += len(outcome.failures)
        print(
            f"{name}: {outcome.inputs:,} inputs in {time.monotonic() - started:.0f} s, {outcome.succeeded:,} read, "
            f"{outcome.refused:,} refused, {len(outcome.failures):,} failed",
            flush=True,
        )
        kinds: dict[str, bytes] = {}
        for content, verdict in outcome.failures:
            kinds.setdefault(verdict[:80], content)
        for number, (verdict, content) in enumerate(kinds.items()):
            if number < _SHOWN:
                print(f"    {verdict}\n        {content[:300]!r}", flush=True)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{name.replace('/', '_')}-{number}").write_bytes(content)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
