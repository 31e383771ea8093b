"""Measure how large the code is and how much of it common tasks touch, for any checkout.

    python benchmarks/house.py [ROOT] [--json]

Code lines are lines of Python without blank lines, comments and docstrings. Functions and files are those of
`minisbert/` and `kernels/` that run during a task, seen by a profiler in a process that imports the checkout.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("minisbert", "kernels")
SMALL = 60  # lines of a file, of any kind
ABOUT_CARDS = ("minisbert/card", "minisbert/recipes", "minisbert/report")
ABOUT_CARDS_FILES = ("inspect.py", "reproduce.py")
RIDDLE = re.compile(r"(What|How|Whether|Where|Which|Whom|Do it)\b")
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def python_files(root: Path) -> list[Path]:
    """Python files of the library, in order."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Docstring nodes of a module, its classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def code_lines(source: str) -> int:
    """Number of lines that hold code."""
    in_docstrings = {
        line for node in docstrings(ast.parse(source)) for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - in_docstrings)


def package_of(path: Path) -> str:
    """First two parts of a relative path: `minisbert/card`."""
    return "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]


def static(root: Path) -> dict[str, Any]:
    """Sizes and counts that reading the files gives."""
    lines: Counter[str] = Counter()
    files: Counter[str] = Counter()
    small = riddles = by_string = cards = 0
    longest = ("", 0)
    for path in python_files(root):
        source, relative = path.read_text(encoding="utf-8"), path.relative_to(root)
        count, package = code_lines(source), package_of(relative)
        lines[package] += count
        files[package] += 1
        total = source.count("\n")
        small += total <= SMALL
        longest = max(longest, (relative.as_posix(), total), key=lambda pair: pair[1])
        riddles += sum(bool(RIDDLE.match(node.value.strip())) for node in docstrings(ast.parse(source)))  # type: ignore[union-attr]
        by_string += len(re.findall(r"\bimport_module\(", source))
        about_cards = package in ABOUT_CARDS or (package == "minisbert/cli" and path.name in ABOUT_CARDS_FILES)
        cards += count if about_cards else 0
    return {
        "code lines": sum(lines.values()),
        "files": sum(files.values()),
        f"files of {SMALL} lines or fewer": small,
        "longest file": f"{longest[0]} ({longest[1]} lines)",
        "code lines about model cards": cards,
        "docstrings that begin as a question": riddles,
        "imports by string": by_string,
        "packages": {name: {"code lines": lines[name], "files": files[name]} for name in sorted(lines)},
    }


def touched(root: Path) -> dict[str, str]:
    """Functions and files that run during common tasks."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "MINISBERT_KERNELS": "reference",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, __file__, str(root), "--tasks"], env=environment, cwd=root, capture_output=True, text=True
    )
    if run.returncode:
        raise SystemExit(f"the tasks failed in {root}:\n{run.stderr}")
    counts: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return counts


class Touched:
    """Profiler of one thread that notes the functions of the library which run."""

    def __init__(self, root: Path) -> None:
        self._folders = tuple(f"{root / package}{os.sep}" for package in PACKAGES)
        self.functions: set[tuple[str, int]] = set()

    def start(self) -> None:
        """Note from now on."""
        sys.setprofile(self._note)

    def stop(self) -> str:
        """Stop, and return the counts since the start."""
        sys.setprofile(None)
        functions, self.functions = self.functions, set()
        return f"{len(functions)} functions in {len({name for name, _ in functions})} files"

    def _note(self, frame: Any, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(self._folders) and not code.co_name.startswith("<"):
            self.functions.add((code.co_filename, code.co_firstlineno))


def tasks(root: Path) -> dict[str, str]:
    """Run the tasks in this process."""
    import tempfile

    from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses

    model = SentenceTransformer("all-MiniLM-L6-v2", device="cpu")
    texts = ["A man is playing a guitar.", "Someone plays an instrument."]
    model.encode(texts)
    profiler, found = Touched(root), {}
    profiler.start()
    model.encode(texts)
    found["encode of two texts"] = profiler.stop()

    steps: list[str] = []

    def one_step(_: object) -> None:
        steps.append(profiler.stop())
        profiler.start()

    rows = [(a, b, 0.5) for a, b in zip(texts * 8, texts[::-1] * 8, strict=True)]
    config = TrainingConfig(batch_size=4, max_steps=3, log_every=1)
    trainer = Trainer(
        model, rows, loss=losses.CosineSimilarityLoss(), config=config, on_log=one_step, show_progress_bar=False
    )
    trainer.train()
    sys.setprofile(None)
    found["one optimizer step"] = steps[1]  # from the first log entry to the second
    with tempfile.TemporaryDirectory() as folder:
        profiler.start()
        model.save_pretrained(folder)
        found["saving a trained model"] = profiler.stop()
    return found


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1], metavar="ROOT")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--tasks", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.root.resolve()
    if not (root / "minisbert").is_dir():
        parser.error(f"got {options.root}; expected a checkout with a folder minisbert/")
    if options.tasks:
        print(json.dumps(tasks(root)))
        return
    result = {**static(root), **touched(root)}
    if options.json:
        print(json.dumps(result))
        return
    packages = result.pop("packages")
    for name, value in result.items():
        print(f"{name:40} {value}")
    for name, sizes in packages.items():
        print(f"  {name:38} {sizes['code lines']:6} code lines {sizes['files']:4} files")


if __name__ == "__main__":
    main()
