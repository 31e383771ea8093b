"""minisbert beside sentence-transformers and other runtimes, in one run, interleaved, with equal threads.

    python benchmarks/run.py COMMAND [--quick] [--data FOLDER]

COMMAND is encode, train, latency, startup, memory, cached, kernels, scale, families, static or gpu.

FOLDER holds the real texts (workloads.py names the files); without it texts are made up from the packaged answers, and
the result says so. A table comes first, then one line of JSON, which also goes to results/COMMAND.json. --quick shows
that all works: few texts, two rounds, nothing kept. gpu needs a CUDA device; `gpu --quick --device cpu` shows that the
script works where there is none.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

COMMANDS = (
    "encode",
    "train",
    "latency",
    "startup",
    "memory",
    "cached",
    "kernels",
    "scale",
    "families",
    "static",
    "gpu",
)
DATA = Path(__file__).parents[2] / "shared" / "data"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("command", choices=COMMANDS)
    made.add_argument("--quick", action="store_true", help="few texts, two rounds; results are not kept")
    made.add_argument("--data", type=Path, default=DATA if DATA.is_dir() else None, metavar="FOLDER")
    made.add_argument("--rounds", type=int, metavar="N", help="how often each is timed (default: 7; startup too)")
    made.add_argument("--device", choices=("cuda", "cpu"), help="of the command gpu (default: cuda)")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="default: all processors")
    return made


def main() -> None:
    """Measure, print the table, and keep the result."""
    options = parser().parse_args()
    if options.rounds is None:
        options.rounds = 2 if options.quick else 7
    if options.rounds < 1 or options.threads < 1:
        parser().error("got fewer than one round or thread; expected at least 1 of each")
    if options.data is not None and not options.data.is_dir():
        parser().error(f"got {options.data}; expected a folder of data, or none for made-up texts")
    # Read when the libraries are loaded, and by the processes that some commands start.
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    if options.command == "gpu":  # on more than one the reference's Trainer would spread its batches
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    _check_device(options)

    import timing
    import torch
    import workloads
    from machine import save

    torch.set_num_threads(options.threads)
    command = importlib.import_module(f"commands.{options.command}")
    before = timing.load()
    print(timing.warning(before) or "the machine is quiet", flush=True)
    result = command.measure(options)
    print(command.table_of(result), flush=True)
    about = {
        "quick": options.quick,
        "data": workloads.described(options.data),
        "rounds": options.rounds,
        "load": {"before": before, "after": timing.load()},
    }
    save(options.command, {**about, **result}, keep=not options.quick)


def _check_device(options: argparse.Namespace) -> None:
    """Refuse a device that is not there or not asked about; the command gpu takes "cuda" by default."""
    if options.command != "gpu":
        if options.device is not None:
            parser().error(f"got --device with {options.command}; expected it with gpu: leave it out")
        return
    options.device = options.device or "cuda"
    if options.device == "cpu" and not options.quick:
        parser().error("got --device cpu without --quick; expected both: a CPU only shows that the script works")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print(
                "got no CUDA device; gpu needs one: run it where there is one, or try it with --quick --device cpu",
                file=sys.stderr,
            )
            raise SystemExit(2)


if __name__ == "__main__":
    main()
