"""Embed many texts in all processes of a run: each embeds a part, and gets the embeddings of all."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import torch

from ..distributed import gather_objects, gather_rows, rank, world_size
from ..errors import ConfigError
from ..text import Text
from .encoding import BLOCK, EncodeOptions, EncodingRun, Rows, Values, allocate, collect, progress_bar
from .pool import portable
from .stack import ModuleStack


class SharedRun:
    """One pass of a model over texts that all processes of a run have. Iterate it to do this process's part.

    Args:
        model: embeds the texts; the same in all processes.
        texts: what to embed; the same in all processes.
        options: what to return, which is sentence embeddings.
        progress: show a bar on a terminal.

    Attributes:
        device: where the values are.
        truncated: number of texts truncated so far, by all processes.

    Raises:
        ConfigError: the processes have different texts.
    """

    def __init__(self, model: ModuleStack, texts: list[Text], options: EncodeOptions, *, progress: bool) -> None:
        self._model, self._texts, self._options = model, texts, options
        self._progress = progress and rank() == 0
        self.device, self.truncated = model.device, 0

    def __iter__(self) -> Iterator[tuple[Rows, Values]]:
        counts = gather_objects((len(self._texts), zlib.crc32(repr(self._texts).encode(errors="replace"))))
        if len(set(counts)) > 1:
            raise ConfigError(
                f"got {counts[rank()][0]} texts to share with processes that have "
                f"{', '.join(str(count) for count, _ in counts)}; expected the same texts in all: leave "
                f"distributed.sharing() to encode texts of one process"
            )
        size = BLOCK * world_size()
        with progress_bar(len(self._texts), show=self._progress) as bar:
            for start in range(0, len(self._texts), size):
                rows = np.arange(start, min(start + size, len(self._texts)))
                yield rows, self._embed(rows)
                if bar is not None:
                    bar.update(len(rows))

    @torch.no_grad()
    def _embed(self, rows: Rows) -> Values:
        """Embed the part of rows that is this process's; return the embeddings of all of them: (rows, dim)."""
        own, options = np.array_split(rows, world_size())[rank()], self._options
        shape = len(own), self._model.dimension(options.truncate_dim)
        values, error = torch.empty(0), None
        texts, first = [self._texts[row] for row in own], int(own[0]) if len(own) else 0
        run = EncodingRun(self._model, texts, options, first=first)
        try:
            values = collect(run, allocate(shape, options, device=self.device))  # type: ignore[assignment]
        except Exception as raised:
            error = portable(raised)
        outcomes = gather_objects((run.truncated, error))
        for _, failure in outcomes:  # in every process, as nobody could go on
            if failure is not None:
                raise failure
        self.truncated += sum(truncated for truncated, _ in outcomes)
        return gather_rows(values)
