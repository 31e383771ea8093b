"""Count the names of sentence-transformers that minisbert.compat has with the same signature.

    python benchmarks/names.py               # compare, run the tests of compat, write results/names.json
    python benchmarks/names.py --no-tests    # keep from the last result which names the tests use
    python benchmarks/names.py --page        # write docs/names.md from results/names.json alone

Needs sentence-transformers and what the tests need. A name is the same if its parameters have the same names, order,
kinds and defaults, and counts as used if the tests run its code. The command ends with status 1 if a name that is
missing or different has no reason in names_reasons.py, or a reason has no name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import names_page
from names_reasons import ALIKE, DIFFERENT, MISSING, UNUSED

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "names.json"
PAGE = ROOT / "docs" / "names.md"
# Tests that use compat, without those of this list of names.
TESTS = [
    str(one.relative_to(ROOT))
    for place in ("tests/compat/test_*.py", "tests/parity/test_compat_*.py")
    for one in sorted(ROOT.glob(place))
    if one.name not in ("test_names.py", "test_compat_signatures.py")
]
REASONS = {"missing": MISSING, "different": DIFFERENT}


def dump(*arguments: str, given: str = "") -> dict[str, dict[str, Any]]:
    """Run names_dump.py in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE / "names_dump.py"), *arguments],
        input=given,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def compared() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return each counted name with its state and, if it is different, how; and what minisbert.compat has."""
    theirs = dump()
    ours = dump("--compat", given=json.dumps(theirs))
    names = {}
    for key, one in theirs.items():
        how = "" if key not in ours else difference(one, ours[key])
        state = "missing" if key not in ours else "different" if how else "same"
        names[key] = {"module": one["module"], "kind": one["kind"], "state": state, **({"how": how} if how else {})}
    return names, ours


def difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Say how a name differs; "" if it does not."""
    if theirs["kind"] == ours["kind"] == "property":
        return "" if theirs["value"] in (ours["value"], "cannot be set") else ours["value"]
    if theirs["kind"] != ours["kind"]:
        return f"a {ours['kind']}, not a {theirs['kind']}"
    if "parameters" not in theirs or "parameters" not in ours:
        return "" if theirs.get("value") == ours.get("value") else _values(theirs.get("value"), ours.get("value"))
    wanted, got = ({one[0]: one[1:] for one in side["parameters"]} for side in (theirs, ours))
    parts = [f"without `{name}`" for name in wanted if name not in got]
    parts += [f"also `{name}`" for name in got if name not in wanted]
    both = [name for name in wanted if name in got]
    for name in both:
        (kind, default), (our_kind, our_default) = wanted[name], got[name]
        if kind != our_kind:
            parts.append(f"`{name}` is {our_kind.lower().replace('_', ' ')}")
        if default != our_default:
            parts.append(f"`{name}={our_default or '(none)'}`, not `{default or '(none)'}`")
    if both != [name for name in got if name in wanted]:
        parts.append("another order")
    return ", ".join(parts)


def _values(theirs: Any, ours: Any) -> str:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        parts = [f"without `{name}`" for name in theirs if name not in ours]
        parts += [f"also `{name}`" for name in ours if name not in theirs]
        parts += [f"`{name}` is {ours[name]!r}" for name in theirs if name in ours and theirs[name] != ours[name]]
        return ", ".join(parts) or "another order"
    return f"{ours}, not {theirs}" if len(str(theirs)) < 40 else "another value"


def called() -> set[str]:
    """Run the tests of compat and return `file:line` of all functions that they called."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "called"
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "parity or not parity", "-p", "names_recorder"]
        places = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "NAMES_RECORD": str(record), "PYTHONPATH": places}
        if subprocess.run([*command, *TESTS], cwd=ROOT, env=environment, check=False).returncode:
            raise SystemExit("the tests of compat fail: which names they use is not known")
        return set(record.read_text(encoding="utf-8").splitlines())


def mark_used(names: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]], lines: set[str]) -> None:
    """Mark the names whose code was called; one without code of its own counts if a test's text has it."""
    texts = "\n".join((ROOT / one).read_text(encoding="utf-8") for one in TESTS)
    for key, one in names.items():
        if one["state"] == "missing":
            continue
        code = ours[key].get("code")
        name = key.rpartition(".")[2]
        one["used"] = f"{code[0]}:{code[1]}" in lines if code and "minisbert" in code[0] else name in texts


def explain(names: dict[str, dict[str, Any]]) -> list[str]:
    """Add the reasons; return a line for each name without one, and for each reason without a name."""
    taken: dict[str, set[str]] = {"missing": set(), "different": set(), "unused": set()}
    problems = []
    for key, one in names.items():
        state = "unused" if one["state"] == "same" and not one.get("used") else one["state"]
        if state == "same":
            continue
        alike = next((why for how, why in ALIKE.items() if re.fullmatch(how, one.get("how", ""))), None)
        if alike is not None:
            one["why"] = alike
            continue
        reasons = REASONS.get(state, UNUSED)
        pattern = next((pattern for pattern in reasons if fnmatchcase(key, pattern)), None)
        if pattern is None:
            problems.append(f"{state}: {key}{': ' + one['how'] if 'how' in one else ''}")
        else:
            taken[state].add(pattern)
            one["why"] = reasons[pattern]
    for state, reasons in (*REASONS.items(), ("unused", UNUSED)):
        problems += [f"a reason for nothing {state}: {one}" for one in reasons if one not in taken[state]]
    return problems


def main() -> int:
    """Count, write the result and the page, and print what has no reason."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-tests", action="store_true", help="do not run the tests")
    parser.add_argument("--page", action="store_true", help="write the page from the result that there is")
    options = parser.parse_args()
    problems: list[str] = []
    if not options.page:
        names, ours = compared()
        if options.no_tests:
            before = json.loads(RESULT.read_text(encoding="utf-8"))["names"] if RESULT.exists() else {}
            for key, one in names.items():
                if one["state"] != "missing":
                    one["used"] = before.get(key, {}).get("used", False)
        else:
            mark_used(names, ours, called())
        problems = explain(names)
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(one, ensure_ascii=False)}" for key, one in names.items())
        of = json.dumps(version("sentence-transformers"))
        RESULT.write_text(f'{{"version": {of}, "names": {{\n{lines}\n}}}}\n', encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    PAGE.write_text(names_page.render(result), encoding="utf-8")
    print(names_page.counts(result))
    for line in problems:
        print(line)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
