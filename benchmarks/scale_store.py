"""Token stores: time to build one beside tokenizing alone, and memory of training on many rows."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from commands.memory import status

from minisbert import SentenceTransformer, Trainer, TrainingConfig, losses
from minisbert.data.stored_rows import BLOCK, StoredRows, stored_rows, tokenization
from minisbert.data.token_store import StoreWriter
from minisbert.text import TokenizedTexts

_WRITTEN = 2_000_000  # made-up rows that are written together


def build_times(model: SentenceTransformer, pairs: Sequence[tuple[str, str]], *, rounds: int) -> list[dict[str, Any]]:
    """Seconds of tokenizing pairs in memory, and of building a store from a file of each kind; the least of rounds."""
    tokenizer, found = model.transformer.text_tokenizer, []
    with tempfile.TemporaryDirectory() as place:
        ways: dict[str, Callable[[int], object]] = {"tokenizing alone": lambda _: _tokenize(tokenizer, pairs)}
        for kind, write in _KINDS.items():
            file = Path(place) / f"pairs.{kind}"
            write(file, pairs)
            ways[f"store from .{kind}"] = lambda n, file=file: stored_rows(
                file, tokenizer, cache=Path(place) / f"{n}-{file.name}"
            )
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds):
            for way, build in ways.items():
                start = time.perf_counter()
                build(number)
                seconds[way].append(time.perf_counter() - start)
    alone = min(seconds["tokenizing alone"])
    for way, times in seconds.items():
        found.append({"way": way, "rows": len(pairs), "seconds": min(times), "times alone": min(times) / alone})
    return found


def training_memory(
    model: SentenceTransformer, rows: Sequence[int], *, steps: int, batch_size: int = 64
) -> list[dict[str, Any]]:
    """MB of anonymous memory that training takes beyond the model, the most after any step, by number of rows."""
    found = []
    for count in (10_000, *rows):  # the first warms up what torch keeps
        with tempfile.TemporaryDirectory() as place:
            stored, seen = made_up(Path(place), count, model), []
            before, start = status("RssAnon"), time.perf_counter()
            config = TrainingConfig(max_steps=steps, batch_size=batch_size, log_every=1)
            Trainer(
                model,
                stored,
                loss=losses.MultipleNegativesRankingLoss(),
                config=config,
                show_progress_bar=False,
                on_log=lambda _, seen=seen: seen.append(status("RssAnon")),
            ).train()
            seconds, size = time.perf_counter() - start, sum(file.stat().st_size for file in Path(place).iterdir())
            found.append(
                {"rows": count, "steps": steps, "MB": max(seen) - before, "seconds": seconds, "MB of store": size / 1e6}
            )
    return found[1:]


def made_up(folder: Path, rows: int, model: SentenceTransformer) -> StoredRows:
    """Write a store of pairs of random ids, six tokens a text in the mean."""
    draw, tokenizer = np.random.default_rng(0), model.transformer.text_tokenizer
    vocabulary = len(tokenizer)
    with StoreWriter(folder, columns=["anchor", "positive"], vocabulary=vocabulary) as writer:
        for start in range(0, rows, _WRITTEN):
            block = min(_WRITTEN, rows - start)
            lengths = draw.integers(3, 10, 2 * block)
            ids = draw.integers(0, vocabulary, int(lengths.sum()), dtype=np.int32)
            hashes = draw.integers(0, 2**63, (block, 2), dtype=np.uint64)
            writer.add(TokenizedTexts(ids, lengths, 0), hashes)
        texts = {"anchor": ["a text"] * 3, "positive": ["another text"] * 3}
        label = {"name": None, "type": "float", "index": None}
        made_of = {**tokenization(tokenizer, {}), "source": "made-up pairs", "label": label, "texts": texts}
        writer.finish({"made_of": made_of})
    return stored_rows(folder, tokenizer, cache=None)


def _tokenize(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> None:
    for start in range(0, len(pairs), BLOCK):
        tokenizer([text for pair in pairs[start : start + BLOCK] for text in pair])


def _write_tsv(file: Path, pairs: Sequence[tuple[str, str]]) -> None:
    clean = ("\t".join(" ".join(text.split()) for text in pair) for pair in pairs)
    file.write_text("anchor\tpositive\n" + "".join(f"{line}\n" for line in clean), encoding="utf-8")


def _write_jsonl(file: Path, pairs: Sequence[tuple[str, str]]) -> None:
    lines = (json.dumps({"anchor": one, "positive": other}) for one, other in pairs)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_parquet(file: Path, pairs: Sequence[tuple[str, str]]) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = dict(zip(("anchor", "positive"), map(list, zip(*pairs, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), file)


_KINDS = {"tsv": _write_tsv, "jsonl": _write_jsonl, "parquet": _write_parquet}
