"""Start several processes under torchrun, as `torchrun --nproc-per-node N` does, and read what they print."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from places import HELPERS, ROOT

_LONGEST = 6_000  # characters of the output in a message


class Ended(NamedTuple):
    """Processes that have ended: the status of torchrun, and their standard output and error together."""

    status: int
    output: str

    def check(self) -> Ended:
        """Fail with the output unless all went well."""
        assert self.status == 0, f"status {self.status}\n{self.output[-_LONGEST:]}"
        return self


class Launched:
    """Processes under torchrun.

    Args:
        arguments: a script and its arguments, or "-m", a module and its arguments.
        processes: number of ranks.
        timeout: seconds after which all of them are killed.
        restarts: how often torchrun may start them again.
        environment: variables that they have beside ours; each computes with one thread.
    """

    def __init__(
        self,
        arguments: Sequence[Any],
        *,
        processes: int = 2,
        timeout: float = 90,
        restarts: int = 0,
        environment: dict[str, str] | None = None,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = ["torch.distributed.run", "--nnodes", "1", "--nproc-per-node", processes, "--master-port", port]
        launcher += ["--master-addr", "127.0.0.1", "--max-restarts", restarts]
        paths = [str(ROOT), str(HELPERS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        own = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, launcher), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **own, **(environment or {})},
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self._timer = threading.Timer(timeout, self.process.kill)  # the ranks notice that it is gone
        self._timer.start()

    def wait_for(self, text: str, *, seconds: float = 60) -> str:
        """Wait for a line of output with `text` in it, and return it."""

        def found() -> str | None:
            return next((line for line in self._lines if text in line), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or not self._reader.is_alive(), timeout=seconds)
        line = found()
        assert line is not None, f"no {text!r} in\n{self.output[-_LONGEST:]}"
        return line

    @property
    def output(self) -> str:
        """What was printed so far."""
        return "".join(self._lines)

    def ranks(self) -> list[int]:
        """Return the process of each rank, as far as they run."""
        found: list[tuple[int, int]] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == self.process.pid:
                    variables = (folder / "environ").read_text(errors="replace").split("\0")
                    found += [(int(one[5:]), int(folder.name)) for one in variables if one.startswith("RANK=")]
        return [process for _, process in sorted(found)]

    def end(self, number: int | None = None) -> Ended:
        """Send torchrun a signal, or none, and wait until it has ended."""
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait()
        self._timer.cancel()
        self._reader.join(30)
        return Ended(status, self.output)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        stream.close()
        with self._news:
            self._news.notify_all()


def launch(script: Path | str, *arguments: Any, processes: int = 2, **options: Any) -> Ended:
    """Run a script in several processes to its end."""
    return Launched([script, *arguments], processes=processes, **options).end()


def kill(process: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(process, number)
