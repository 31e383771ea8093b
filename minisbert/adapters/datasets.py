"""A model as a function for `Dataset.map` of datasets.

`minisbert.Embedder` is one as well, which knows no loaded model, and does not make lists of a fixed size here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from ..errors import ConfigError, InputError, InputTypeError, nearest, shown
from ._base import Embeddings, PlainEncoder, imported_from

with imported_from("datasets"):
    from datasets import Dataset, Features, List, Value

AnyDataset = TypeVar("AnyDataset")


@dataclass(eq=False, repr=False)
class ColumnEmbedder(PlainEncoder):
    """Adds a column of embeddings: `ColumnEmbedder("all-MiniLM-L6-v2").add_to(dataset)`.

    The fingerprint of the result depends on the options and, by a digest, on the files of a folder or the weights of a
    loaded model: another model is computed again, the same one read from the cache of datasets, in other processes
    too (with a loaded model, only by `add_to`). A name on the Hub counts as its name: pin it with `revision`.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        revision: branch, tag or commit on the Hub.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        prompt: put before each text; by default the model's default prompt.
        column: name of the column of texts.
        output: name of the column of embeddings.

    Raises:
        ConfigError: this is no model, or options of loading are given with a loaded one.
    """

    column: str = "text"
    output: str = "embedding"

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Embeddings]:
        """Embed a batch of `dataset.map(embedder, batched=True, features=embedder.features(dataset))`.

        Raises:
            InputError: there is no such column.
            InputTypeError: a text is missing.
        """
        self._check(getattr(batch, "column_names", None) or list(batch))  # a table of Arrow, a DataFrame, or a dict
        rows = batch[self.column]
        return {self.output: self.encode(rows.to_pylist() if hasattr(rows, "to_pylist") else rows)}

    def features(self, dataset: Any) -> Features:
        """Return the columns of a data set with that of the embeddings, lists of float32 of a fixed size.

        Raises:
            InputError: there is no column of texts, or one of the output's name already.
        """
        self._check(names := list(dataset.features))
        if self.output in names:
            raise InputError(f"got a column {self.output!r} already; expected none: name another output, or drop it")
        return Features({**dataset.features, self.output: List(Value("float32"), length=self.dimension)})

    def add_to(self, dataset: AnyDataset, *, num_proc: int | None = None, rows: int = 4096) -> AnyDataset:
        """Return the data set, or each split of several, with the column of embeddings.

        Args:
            dataset: a Dataset, an IterableDataset, or a dict of them, of datasets.
            num_proc: processes; only for a Dataset.
            rows: that are embedded at a time.

        Raises:
            InputError: there is no column of texts, or one of the output's name already.
            InputTypeError: this is no data set.
        """
        if not isinstance(dataset, dict) and not (hasattr(dataset, "map") and hasattr(dataset, "features")):
            raise InputTypeError(
                f"got {shown(dataset)}; expected a data set of datasets: make one by Dataset.from_list"
            )
        if isinstance(dataset, dict):
            parts = {name: self.add_to(part, num_proc=num_proc, rows=rows) for name, part in dataset.items()}
            return type(dataset)(parts)
        mapped: Any = dataset
        features = self.features(dataset)
        if isinstance(dataset, Dataset) and not len(dataset):  # which `map` returns as it is
            return mapped.add_column(self.output, [], feature=features[self.output])
        options: dict[str, Any] = {} if num_proc is None else {"num_proc": num_proc}
        if isinstance(dataset, Dataset):  # datasets would hash a loaded model by its pickle, another in every process
            named = {field.name: getattr(self, field.name) for field in fields(self)} | {"model": self.content}
            origin = f"{dataset._fingerprint} {json.dumps(named)} {self._named}"
            options["new_fingerprint"] = hashlib.sha256(origin.encode()).hexdigest()[:16]
        return mapped.map(self, batched=True, batch_size=rows, features=features, **options)

    def _check(self, names: Iterable[str]) -> None:
        if not isinstance(self.column, str) or not isinstance(self.output, str):
            got = f"column={shown(self.column)} and output={shown(self.output)}"
            raise ConfigError(f"got {got}; expected the names of two columns")
        if self.column not in (names := list(names)):
            near = nearest(self.column, names, otherwise=names)
            raise InputError(f"got no column {self.column!r}; expected its texts: the columns are {near or 'none'}")
