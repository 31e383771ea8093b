"""What can go wrong, done on purpose, again and again: how often it was survived, and what was lost.

    python tests/robustness/faults.py [kill|disk|fuzz|load|all] [--quick] [--data FOLDER]

kill: training is killed, and asked to stop, at random moments, and resumed until it ends. disk: it meets a full disk
and an output that cannot be written. fuzz: everything that reads a file gets wrong files. load: many threads, forked
and spawned processes, a million texts, workers that die. One table comes at the end, then one line of JSON, which also
goes to benchmarks/results/faults.json if all parts ran in full; the exit status is 1 if anything was not survived.
--quick does a few of each. FOLDER holds real texts, for the parts that use them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

PARTS = ("kill", "disk", "fuzz", "load")  # modules in trials/, each with `run(options) -> list[Trial]`
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def main() -> None:
    """Run the parts, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--quick", action="store_true", help="a few of each; results are not kept")
    parser.add_argument("--data", type=Path, default=DATA if DATA.is_dir() else None, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides what is random (default: 0)")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")  # of processes too

    sys.path.append(str(ROOT / "benchmarks"))
    from machine import save, table

    trials = []
    for part in PARTS if options.part == "all" else (options.part,):
        trials += importlib.import_module(f"trials.{part}").run(options)
    print(table([("what", "how many", "survived", "lost"), *trials]), flush=True)
    keep = options.part == "all" and not options.quick
    save("faults", {"quick": options.quick, "seed": options.seed, "trials": [t._asdict() for t in trials]}, keep=keep)
    sys.exit(any(trial.survived < trial.count for trial in trials))


if __name__ == "__main__":
    main()
