"""Everything that reads a file, fed with files that are wrong.

    python benchmarks/fuzzing.py                        # every target for a minute
    python benchmarks/fuzzing.py cards --seconds 600 --seed 7

A target is a valid file, a way to change it at random, and the functions that read it. Each input has to end in
success or in one of our own errors (`minisbert.errors`) with a message of one line. Any other exception is a failure,
and so are ten seconds without an end and 500 MB of memory. An input hangs for sure only where Python can be
interrupted: `faulthandler` ends the process where it cannot.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import faulthandler
import gzip
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import tiny_models  # noqa: E402
import torch  # noqa: E402
from mutations import Mutation, change_bytes, change_json, change_lines, change_safetensors  # noqa: E402

from minisbert import SentenceTransformer  # noqa: E402
from minisbert.card import render  # noqa: E402
from minisbert.card.reading import read_card  # noqa: E402
from minisbert.cli.summaries import card_summary, model_summary  # noqa: E402
from minisbert.data.readers import read_lines  # noqa: E402
from minisbert.data.retrieval import read_retrieval  # noqa: E402
from minisbert.data.roles import training_rows  # noqa: E402
from minisbert.errors import MinisbertError  # noqa: E402
from minisbert.recipes import parse_recipe, recipe_of  # noqa: E402
from minisbert.storage.contents import read_contents  # noqa: E402
from minisbert.storage.headers import read_header  # noqa: E402
from minisbert.storage.layout import read_layout  # noqa: E402
from minisbert.storage.weights import read_weights  # noqa: E402

LONGEST_INPUT = 10.0  # seconds
MOST_MEMORY = 500_000_000  # bytes more than before
_SHOWN = 5  # failures of a target that are told in full


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Outcome:
    """What came of the inputs of a target.

    Attributes:
        inputs: how many were tried.
        succeeded: how many were read.
        refused: how many ended in one of our own errors.
        failures: the input and the exception of each other one.
    """

    inputs: int = 0
    succeeded: int = 0
    refused: int = 0
    failures: list[tuple[bytes, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Something that reads a file.

    Attributes:
        seeds: valid files.
        change: makes an input of one.
        prepare: fills a folder with what stands around the file.
        feed: writes the input into that folder, and reads it.
    """

    seeds: Callable[[], Sequence[bytes]]
    change: Mutation
    feed: Callable[[Path, bytes], None]
    prepare: Callable[[Path], object] = lambda folder: None


def run(target: Target, *, inputs: int | None = None, seconds: float | None = None, seed: int = 0) -> Outcome:
    """Feed a target with so many inputs, or for so long; equal seeds make equal inputs."""
    draw, outcome = random.Random(seed), Outcome()
    end = time.monotonic() + seconds if seconds is not None else None
    seeds = target.seeds()
    with _workplace() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.prepare(folder)
        while (inputs is None or outcome.inputs < inputs) and (end is None or time.monotonic() < end):
            # The valid files first: what refuses them tests nothing.
            number = outcome.inputs
            content = seeds[number] if number < len(seeds) else target.change(draw.choice(seeds), draw)
            outcome.inputs += 1
            verdict = _verdict(lambda content=content: target.feed(folder, content))
            outcome.succeeded += verdict == "read"
            outcome.refused += verdict == "refused"
            if verdict not in ("read", "refused") or (number < len(seeds) and verdict != "read"):
                outcome.failures.append((content, verdict))
    return outcome


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A folder in memory where there is one, and the signal that ends what hangs."""

    def ring(number: int, frame: object) -> None:
        raise Hang(f"{LONGEST_INPUT:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    memory = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
            yield Path(name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def _verdict(read: Callable[[], None]) -> str:
    """ "read", "refused", or what went wrong."""
    before = _peak()
    signal.setitimer(signal.ITIMER_REAL, LONGEST_INPUT)
    try:
        read()
        verdict = "read"
    except MinisbertError as error:
        verdict = "refused" if _is_one_line(str(error)) else f"not one line: {str(error)[:500]!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        verdict = repr(error)[:500]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = _peak() - before
    return verdict if grown < MOST_MEMORY else f"{grown:,} bytes of memory ({verdict})"


def _is_one_line(message: str) -> bool:
    """As the commands print it: without breaks, and not longer than anyone reads."""
    return bool(message.strip()) and "\n" not in message.strip()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---- model folders --------------------------------------------------------------------------------------------------


def _model(folder: Path) -> Path:
    """A tiny model with everything that a folder can have."""
    place = tiny_models.build(folder / "model", "bert", layers=1, dim=16)
    dense = {
        "in_features": 16,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    modules = json.loads((place / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "3_Dense").mkdir()
    (place / "3_Dense" / "config.json").write_text(json.dumps(dense))
    tensors = {"linear.weight": torch.zeros(8, 16), "linear.bias": torch.zeros(8)}
    torch.save(tensors, place / "3_Dense" / "pytorch_model.bin")
    settings = {
        "prompts": {"query": "q: ", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "truncate_dim": None,
        "__version__": {"sentence_transformers": "6.2.0"},
    }
    (place / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return place


def _load(folder: Path) -> None:
    """Load and describe the model of a folder, and embed with it."""
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    model.encode(["a cat sat", "", "naïve 我们 zzz", ("one", "two")])
    model_summary(read_contents(folder))


def _describe(folder: Path) -> None:
    read_layout(folder)
    model_summary(read_contents(folder))


def _in_model(name: str, read: Callable[[Path], None], change: Mutation = change_json) -> Target:
    """A file of a model folder, which is otherwise as it should be."""

    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            return [(_model(Path(folder)) / name).read_bytes()]

    def feed(folder: Path, content: bytes) -> None:
        place = folder / "model"
        (place / name).write_bytes(content)
        read(place)

    return Target(seeds, change, feed, _model)


def _bert_settings() -> list[bytes]:
    settings = [
        {"max_seq_length": 48, "do_lower_case": False},
        {"max_seq_length": 20, "model_args": {"dtype": "float16"}, "tokenizer_args": {"model_max_length": 9}},
        {
            "processing_kwargs": {"text": {"max_length": 12, "truncation": True}},
            "transformer_task": "feature-extraction",
        },
        {"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}},
    ]
    return [json.dumps(one).encode() for one in settings]


def _index_seeds() -> list[bytes]:
    return [json.dumps({"metadata": {"total_size": 64}, "weight_map": {"a": "one.safetensors"}}).encode()]


def _index_folder(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(16)}, folder / "one.safetensors")


def _feed_index(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors.index.json").write_bytes(content)
    read_weights(folder)


def _feed_header(folder: Path, content: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    try:
        read_header(path)
    finally:
        read_weights(folder)


def _header_seeds() -> list[bytes]:
    from safetensors.torch import save

    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(4, dtype=torch.bfloat16),
        "c": torch.zeros(1, dtype=torch.int64),
    }
    return [save(tensors), save({"a": torch.zeros(1)}, metadata={"format": "pt"})]


def _pickle_seeds() -> list[bytes]:
    found = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.zeros(2, 3)}, file, _use_new_zipfile_serialization=new)
        found.append(file.getvalue())
    return found


def _feed_pickle(folder: Path, content: bytes) -> None:
    (folder / "pytorch_model.bin").write_bytes(content)
    read_weights(folder)


# ---- cards and recipes ----------------------------------------------------------------------------------------------


def _cards() -> list[bytes]:
    own = [ROOT / "tests" / "card_small.md", *sorted((ROOT.parent / "shared" / "cards").glob("*.md"))]
    return [path.read_bytes() for path in own]


def _feed_card(folder: Path, content: bytes) -> None:
    path = folder / "README.md"
    path.write_bytes(content)
    facts = read_card(path)
    render(facts)
    card_summary(facts)
    recipe_of(facts)


def _card_seeds() -> list[bytes]:
    """The cards that tell of a training that can be followed."""
    with tempfile.TemporaryDirectory() as folder:
        return [card for card in _cards() if _verdict_of_card(Path(folder), card)]


def _verdict_of_card(folder: Path, card: bytes) -> bool:
    try:
        _feed_card(folder, card)
    except MinisbertError:
        return False
    return True


def _recipes() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "benchmarks" / "recipes").glob("*.yaml"))]


def _feed_recipe(folder: Path, content: bytes) -> None:
    parse_recipe(content.decode("utf-8", "replace"))


# ---- data -----------------------------------------------------------------------------------------------------------

_ROWS = [
    {"sentence1": "a cat", "sentence2": "ein Kätzchen 😀", "score": 0.5},
    {"sentence1": 'with "quotes", and commas', "sentence2": "", "score": 1},
    {"sentence1": "我们", "sentence2": "x" * 200, "score": -0.25},
]


def _table(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL)
    rows = [{**row, "sentence1": row["sentence1"].replace('"', "")} for row in _ROWS] if delimiter == "\t" else _ROWS
    writer.writerows([list(_ROWS[0]), *(list(row.values()) for row in rows)])
    return file.getvalue().encode("utf-8")


def _jsonl() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in _ROWS)


def _change_jsonl(content: bytes, draw: random.Random) -> bytes:
    """A value of one row changed, or the text."""
    if draw.random() < 0.5:
        return change_lines(content, draw)
    lines = content.splitlines()
    place = draw.randrange(len(lines))
    lines[place] = change_json(lines[place], draw)
    return b"\n".join(lines)


def _data(name: str, seeds: Callable[[], bytes], change: Mutation = change_lines) -> Target:
    def feed(folder: Path, content: bytes) -> None:
        (folder / name).write_bytes(content)
        training_rows(folder / name, columns=None if len(content) % 2 else ("sentence1", "sentence2", "score"))

    return Target(lambda: [seeds()], change, feed)


def _packed(content: bytes, draw: random.Random) -> bytes:
    """Compressed after or before the change."""
    if draw.random() < 0.5:
        return gzip.compress(change_lines(gzip.decompress(content), draw), compresslevel=1)
    return change_bytes(content, draw)


def _feed_lines(folder: Path, content: bytes) -> None:
    (folder / "texts.txt").write_bytes(content)
    read_lines(folder / "texts.txt")


def _retrieval(folder: Path) -> None:
    (folder / "qrels").mkdir()
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n')
    (folder / "corpus.jsonl").write_text(
        '{"_id": "a", "title": "t", "text": "one"}\n{"_id": "b", "title": "", "text": "x"}\n'
    )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n2\tb\t0\n")


def _in_retrieval(name: str, change: Mutation) -> Target:
    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            _retrieval(Path(folder))
            return [(Path(folder) / name).read_bytes()]

    def feed(folder: Path, content: bytes) -> None:
        (folder / name).write_bytes(content)
        read_retrieval(folder)

    return Target(seeds, change, feed, _retrieval)


_SENTENCE_BERT = _in_model("sentence_bert_config.json", _load)
TARGETS: dict[str, Target] = {
    "safetensors": Target(_header_seeds, change_safetensors, _feed_header),
    "safetensors index": Target(_index_seeds, change_json, _feed_index, _index_folder),
    "pickled weights": Target(_pickle_seeds, change_bytes, _feed_pickle),
    "modules.json": _in_model("modules.json", _describe),
    "config.json": _in_model("config.json", _load),
    "sentence_bert_config.json": Target(_bert_settings, change_json, _SENTENCE_BERT.feed, _model),
    "config_sentence_transformers.json": _in_model("config_sentence_transformers.json", _load),
    "pooling": _in_model("1_Pooling/config.json", _load),
    "dense": _in_model("3_Dense/config.json", _load),
    "tokenizer.json": _in_model("tokenizer.json", _load),
    "tokenizer_config.json": _in_model("tokenizer_config.json", _load),
    "cards": Target(_card_seeds, change_lines, _feed_card),
    "recipes": Target(_recipes, change_lines, _feed_recipe),
    "tsv": _data("rows.tsv", lambda: _table("\t")),
    "csv": _data("rows.csv", lambda: _table(",")),
    "jsonl": _data("rows.jsonl", _jsonl, _change_jsonl),
    "tsv.gz": _data("rows.tsv.gz", lambda: gzip.compress(_table("\t")), _packed),
    "texts": Target(lambda: [_table("\t")], change_lines, _feed_lines),
    "queries": _in_retrieval("queries.jsonl", _change_jsonl),
    "qrels": _in_retrieval("qrels/test.tsv", change_lines),
}


def main() -> int:
    """Run targets and print what came of them; status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write failing inputs here")
    options = parser.parse_args()
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
