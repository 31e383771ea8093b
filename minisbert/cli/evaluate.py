"""`minisbert evaluate`: measure a model on a file or folder of data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..errors import ConfigError, InputError
from ..storage.files import as_json
from .options import Subparsers, add_command, add_model_options, column_names, load_model, table

if TYPE_CHECKING:
    from ..data.roles import TrainingRows
    from ..data.rows import Table
    from ..evaluation import EmbeddingSimilarityEvaluator, Evaluator

# An evaluator, and the number of pairs, triplets, queries or texts that it evaluates.
Evaluation: TypeAlias = "tuple[Evaluator, int]"
# Names of the columns to use, in order, or None for all.
Columns: TypeAlias = Sequence[str] | None


def add(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "evaluate", run, example="minisbert evaluate all-MiniLM-L6-v2 --sts stsb_dev.tsv.gz")
    add_model_options(parser)
    group = parser.add_argument_group("data to evaluate on").add_mutually_exclusive_group(required=True)
    for name, task in TASKS.items():
        group.add_argument(f"--{name}", type=Path, metavar=task.metavar, help=task.data)
    parser.add_argument(
        "--columns", type=column_names, metavar="NAMES", help="the columns to use, in order, such as text,text,score"
    )
    parser.add_argument(
        "--split", metavar="NAME", help="with --retrieval: the qrels to use (default: test, or the only ones)"
    )
    parser.add_argument("--no-titles", action="store_true", help="with --retrieval: ignore the documents' titles")
    parser.add_argument(
        "--ignore-same-id",
        action="store_true",
        help="with --retrieval: leave out the document with the query's own id, as for ArguAna and Quora",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> None:
    """Measure the quality of a model at a task; several processes of torchrun share its texts."""
    name = next(name for name in TASKS if getattr(options, name) is not None)
    if name != "retrieval" and (options.split is not None or options.no_titles or options.ignore_same_id):
        given = "--split, --no-titles or --ignore-same-id"
        raise ConfigError(f"got {given} with --{name}; expected them with --retrieval: leave them out")
    path: Path = getattr(options, name)
    of_retrieval = {
        "split": options.split,
        "titles": not options.no_titles,
        "ignore_same_id": options.ignore_same_id,
    }
    evaluator, rows = TASKS[name].read(path, options.columns, **(of_retrieval if name == "retrieval" else {}))
    from ..distributed import processes, sharing

    model = load_model(options)
    with processes(model.device), sharing():
        metrics = evaluator(model)
    if options.json:
        print(as_json({"model": options.model, "data": str(path), "rows": rows, **metrics}))
    else:
        print(table([("metric", "value"), *((name, f"{value:.6f}") for name, value in metrics.items())]))


def sts_evaluator(path: Path, columns: Columns) -> EmbeddingSimilarityEvaluator:
    """Make an evaluator of the scored pairs in a data file.

    Raises:
        InputError: the file does not hold two texts and a score in each row.
    """
    from ..evaluation import EmbeddingSimilarityEvaluator

    rows = _rows(
        path, columns, texts=2, label=True, expected="two texts and a score, such as sentence1,sentence2,score"
    )
    if len(rows) < 2:
        raise InputError(f"{path} holds {len(rows)} row; expected at least two to evaluate on: add rows")
    first, second = rows.texts.values()
    return EmbeddingSimilarityEvaluator(first, second, rows.scores or ())


# ---- tasks ----------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """A task: the function that reads its data, the class of its evaluator, and its data in words."""

    read: Callable[..., Evaluation]
    evaluator: str
    data: str
    metavar: str = "FILE"


def _sts(path: Path, columns: Columns) -> Evaluation:
    evaluator = sts_evaluator(path, columns)
    return evaluator, len(evaluator.scores)


def _binary(path: Path, columns: Columns) -> Evaluation:
    from ..evaluation import BinaryClassificationEvaluator

    rows = _rows(path, columns, texts=2, label=True, expected="two texts and a label, 0 or 1")
    first, second = rows.texts.values()
    labels = _zero_or_one(rows)
    return BinaryClassificationEvaluator(first, second, labels, show_progress_bar=True), len(rows)


def _triplets(path: Path, columns: Columns) -> Evaluation:
    from ..evaluation import TripletEvaluator

    rows = _rows(path, columns, texts=3, label=False, expected="anchor, positive and negative")
    return TripletEvaluator(*rows.texts.values(), show_progress_bar=True), len(rows)


def _paraphrases(path: Path, columns: Columns) -> Evaluation:
    from ..evaluation import ParaphraseMiningEvaluator

    rows = _rows(path, columns, texts=2, label=None, expected="two texts, and a label, 0 or 1, or none")
    labels = _zero_or_one(rows) if rows.scores is not None else [1] * len(rows)
    # A text is its own id; two equal texts are one text, and not a pair to find.
    sides = list(zip(*rows.texts.values(), strict=True))
    sentences = {text: text for side in zip(*sides, strict=True) for text in side}
    pairs = [(one, other) for (one, other), label in zip(sides, labels, strict=True) if label and one != other]
    return ParaphraseMiningEvaluator(sentences, pairs, show_progress_bar=True), len(sentences)


def _reranking(path: Path, columns: Columns) -> Evaluation:
    from ..data.rows import as_table
    from ..evaluation import RerankingEvaluator

    table = as_table(path)
    if columns is not None:
        table = table.select(columns)
    keys = ("query", "positive", "negative")
    samples: dict[Any, dict[str, Any]] = {}
    if set(keys) <= table.columns.keys():
        rows = zip(*(table.columns[key] for key in keys), strict=True)
        samples = {row: dict(zip(keys, values, strict=True)) for row, values in enumerate(rows)}
    else:
        expected = "query, document and label in each row, or query, positive, negative"
        labelled = _rows(table, columns, texts=2, label=True, expected=expected)
        for query, document, label in zip(*labelled.texts.values(), labelled.scores or (), strict=True):
            sample = samples.setdefault(query, {"query": query, "positive": [], "negative": []})
            sample["positive" if label > 0 else "negative"].append(document)
    evaluator = RerankingEvaluator(samples, show_progress_bar=True)
    return evaluator, len(evaluator.samples)


def _retrieval(
    path: Path, columns: Columns, *, split: str | None = None, titles: bool = True, ignore_same_id: bool = False
) -> Evaluation:
    from ..data.retrieval import read_retrieval
    from ..evaluation import InformationRetrievalEvaluator

    if columns is not None:
        raise ConfigError("got --columns with --retrieval; expected it with a file of rows: leave it out")
    data = read_retrieval(path, split=split, titles=titles)
    evaluator = InformationRetrievalEvaluator(
        data.queries, data.corpus, data.relevant_docs, ignore_same_id=ignore_same_id, show_progress_bar=True
    )
    return evaluator, len(evaluator.queries)


TASKS = {
    "sts": Task(_sts, "EmbeddingSimilarityEvaluator", "pairs of texts with a score"),
    "retrieval": Task(
        _retrieval,
        "InformationRetrievalEvaluator",
        "a folder in the format of BEIR: corpus.jsonl, queries.jsonl and qrels/test.tsv, which may be TREC's too",
        metavar="FOLDER",
    ),
    "triplets": Task(_triplets, "TripletEvaluator", "anchor, positive and negative in each row"),
    "binary": Task(
        _binary,
        "BinaryClassificationEvaluator",
        "pairs of texts with a label, 1 for those that match and 0 for the others",
    ),
    "paraphrases": Task(
        _paraphrases,
        "ParaphraseMiningEvaluator",
        "pairs of paraphrases to find among all texts; pairs labelled 0 are not paraphrases",
    ),
    "reranking": Task(
        _reranking, "RerankingEvaluator", "query, document and label (relevant above 0), or query, positive, negative"
    ),
}


def _rows(data: Path | Table, columns: Columns, *, texts: int, label: bool | None, expected: str) -> TrainingRows:
    """Read rows of this many texts, with a label or without (None: either)."""
    from ..data.roles import training_rows

    rows = training_rows(data, columns=columns)
    if len(rows.texts) != texts or (label is not None and (rows.scores is not None) != label):
        raise InputError(
            f"{rows.source} has the text columns {list(rows.texts)} and {'a' if rows.scores else 'no'} label; expected "
            f"{expected}: name the columns to use with --columns, or with --eval-columns for those of --eval"
        )
    return rows


def _zero_or_one(rows: TrainingRows) -> list[int]:
    labels = rows.scores or []
    for row, label in enumerate(labels):
        if label not in (0, 1):
            raise InputError(f"row {row} of {rows.source}: got the label {label:g}; expected 0 or 1: fix the row")
    return [int(label) for label in labels]
