"""How far minisbert is from the reference: one table of everything that the parity tests compare.

    python benchmarks/parity.py                 # all
    python benchmarks/parity.py tests/FILE ...  # these again, after a change of theirs; other rows stay

Runs `pytest -m parity`. Older versions of the reference are compared too where MINISBERT_REFERENCES names their
virtual environments.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from machine import save

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "parity.json"


class Collector:
    """Gathers what the tests record through the fixture `compare`: one row for each name."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.outcomes = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest with the result of each phase of each test."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
        for name, value in report.user_properties if report.when == "call" else ():
            if name != "parity":
                continue
            row = self.rows.setdefault(str(value["what"]), {"cases": 0, "largest": 0.0, "bound": value["bound"]})
            row["cases"] += value["cases"]
            row["largest"] = max(row["largest"], value["largest"])
            row["bound"] = max(row["bound"], value["bound"])


def main() -> int:
    """Run the tests, print the table, and write results/parity.json."""
    collector = Collector()
    again = [Path(name) for name in sys.argv[1:]]
    places = [str(ROOT / name) for name in again or [Path("tests")]]
    status = pytest.main(["-q", "-m", "parity", "--rootdir", str(ROOT), *places], plugins=[collector])
    earlier: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if again else {}
    lines = [("what was compared", "cases", "largest difference", "bound")]
    lines += [
        (what, f"{row['cases']:,}", f"{row['largest']:.1e}" if row["largest"] else "0", f"{row['bound']:g}")
        for what, row in sorted(collector.rows.items())
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for what, *numbers in lines:
        print("  ".join([what.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True))]))
    sys.path.append(str(ROOT / "tests" / "helpers"))
    from references import versions

    rows = dict(sorted({**earlier.get("rows", {}), **collector.rows}.items()))
    tests = earlier.get("tests", collector.outcomes)
    since = [*earlier.get("again", []), {"files": list(map(str, again)), "tests": collector.outcomes}] if again else []
    save("parity", {"references": versions(), "tests": tests, "rows": rows, "again": since})
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
