"""Run the tutorial: every command and snippet of docs/tutorial.md, and put their output on the page.

    python tests/documentation/tutorial.py            # what differs from the page
    python tests/documentation/tutorial.py --write    # write the page and its pictures

A block of bash or Python is executed, in order and in one folder; a block of text that follows it at once is what it
prints, with two decimals and without times and versions. A snippet that needs a package which is not installed is left
as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
PICTURES = ROOT / "docs" / "tutorial"
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$(?:\n\n```text\n(?P<output>.*?)^```$)?", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?![\w.-]*\d)")
TINY = re.compile(r"\d(?:\.\d+)?e-\d+")  # a difference of roundings
DECIMALS = 2
ROUNDED, DRAWN = 0.011, 0.031  # by how much a number may differ: where kernels round, and where they draw dropout
LARGEST_TINY = 2e-6
COLOURS = 32
LEFT_OUT = re.compile(r"^(?:time|versions) .*\n", re.M)
OPTIONAL = ("chromadb",)  # packages that a snippet may need and the tests do without


def main() -> int:
    """Run the page, and write or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the page and its pictures")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        text = render(Path(folder))
        if options.write:
            PAGE.write_text(text, encoding="utf-8")
            PICTURES.mkdir(exist_ok=True)
            for picture in pictures(Path(folder)):
                copy_small(picture, PICTURES / picture.name)
    problems = list(differences(PAGE.read_text(encoding="utf-8"), text, tolerance=tolerance()))
    print(*problems or ["the page is as it was run"], sep="\n")
    return bool(problems)


def render(folder: Path) -> str:
    """Run all blocks of the page in a folder, and return the page with what they print."""
    names: dict[str, object] = {"__name__": "__main__"}

    def replaced(block: re.Match[str]) -> str:
        if block["language"] not in ("bash", "python") or needs(block["text"]):
            return block[0]
        with contextlib.chdir(folder) if sys.version_info >= (3, 11) else changed(folder):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                run(block["language"], block["text"], names)
        if block["output"] is None:
            return block[0]
        return f"```{block['language']}\n{block['text']}```\n\n```text\n{shown(printed.getvalue())}```"

    return BLOCK.sub(replaced, PAGE.read_text(encoding="utf-8"))


def run(language: str, text: str, names: dict[str, object]) -> None:
    """Execute a block: Python, or commands of minisbert."""
    from minisbert.cli import main as minisbert

    if language == "python":
        exec(compile(text, str(PAGE), "exec"), names)
        return
    for command in text.replace("\\\n", "").splitlines():
        program, *arguments = shlex.split(command)
        assert program == "minisbert", f"{command} is run by nobody"
        assert minisbert(arguments) == 0, command


def needs(text: str) -> bool:
    """Return True if a snippet needs a package that is not installed."""
    return any(f"import {name}" in text and importlib.util.find_spec(name) is None for name in OPTIONAL)


def shown(output: str) -> str:
    """Output as the page shows it: numbers with two decimals, in the same columns."""
    kept = LEFT_OUT.sub("", output.strip("\n") + "\n")
    return "".join(f"{line.rstrip()}\n" for line in NUMBER.sub(_rounded, kept).splitlines())


def _rounded(number: re.Match[str]) -> str:
    text = number[0]
    if len(text.partition(".")[2]) <= DECIMALS:
        return text
    short = f"{float(text):{'+' if text[0] == '+' else ''}.{DECIMALS}f}"
    in_column = number.string[: number.start()].endswith(("  ", "\n"))
    return short.rjust(len(text)) if in_column else short


def pictures(folder: Path) -> list[Path]:
    """The pictures that the page shows, in the folder that it was run in."""
    names = re.findall(r"\]\(tutorial/(\w+\.png)\)", PAGE.read_text(encoding="utf-8"))
    return [next(folder.glob(f"*/{name}")) for name in names]


def copy_small(picture: Path, to: Path) -> None:
    """Copy a picture, with as few colours as drawings of lines need."""
    from PIL import Image  # matplotlib brings it

    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLOURS).save(to, optimize=True)


def tolerance() -> float:
    """By how much numbers may differ: without the C++ kernels, training drops other activations than with them."""
    from minisbert.kernels import library

    return DRAWN if library.level() is None else ROUNDED


def differences(page: str, run_again: str, *, tolerance: float = ROUNDED) -> Iterator[str]:
    """What a run prints in another way than the page has it, but for numbers that are nearly the same."""
    lines, others = page.splitlines(), run_again.splitlines()
    if len(lines) != len(others):
        yield f"the page has {len(lines)} lines, and {len(others)} when it is run"
    for number, (line, other) in enumerate(zip(lines, others, strict=False), start=1):
        if line != other and not is_close(line, other, tolerance):
            yield f"line {number}: {line!r} is {other!r} when it is run"


def is_close(line: str, other: str, tolerance: float) -> bool:
    """True if two lines differ in numbers alone, and in these by no more than is allowed."""
    numbers = [[float(one) for one in NUMBER.findall(text)] for text in (line, other)]
    tiny = [[float(one) for one in TINY.findall(text)] for text in (line, other)]
    words = [" ".join(NUMBER.sub("#", TINY.sub("#", text)).split()) for text in (line, other)]
    return (
        words[0] == words[1]
        and all(abs(first - second) < tolerance for first, second in zip(*numbers, strict=True))
        and all(first == second or max(first, second) < LARGEST_TINY for first, second in zip(*tiny, strict=True))
    )


@contextlib.contextmanager
def changed(folder: Path) -> Iterator[None]:
    """Work in a folder, as `contextlib.chdir` does from Python 3.11 on."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    sys.exit(main())
