"""`encode` and its relatives: texts to embeddings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, InputTypeError
from ..similarity import Precision
from ..text import Text, read_inputs
from .devices import usable_device
from .encoding import (
    BLOCK,
    EncodeOptions,
    EncodingRun,
    OutputValue,
    Run,
    allocate,
    check_count,
    collect,
    quantize,
)
from .pool import EncodingPool, PoolRun
from .stack import ModuleStack

# One text; or several texts and pairs of texts: a list, a tuple, an array, a pandas.Series.
Inputs: TypeAlias = "str | Sequence[Text] | NDArray[Any]"
Device: TypeAlias = "str | torch.device | Sequence[str | torch.device]"

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class EncodeKeywords(TypedDict, total=False):
        """Keyword arguments of `encode`."""

        sentences: Inputs | None
        prompt_name: str | None
        prompt: str | None
        batch_size: int | None
        show_progress_bar: bool | None
        output_value: OutputValue | None
        precision: Precision | None
        convert_to_numpy: bool
        convert_to_tensor: bool
        device: Device | None
        normalize_embeddings: bool
        truncate_dim: int | None
        pool: EncodingPool | None
        chunk_size: int | None
        out: NDArray[np.float32] | None


class Embedder(ModuleStack):
    """A model that embeds texts."""

    def encode(
        self,
        inputs: Inputs | None = None,
        *,
        sentences: Inputs | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: OutputValue | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: EncodingPool | None = None,
        chunk_size: int | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> Any:
        """Embed texts.

        Args:
            inputs: one text or several; a pair `("a", "b")` among several is embedded jointly, as one sequence.
            sentences: the older name of `inputs`.
            prompt_name: name of the prompt to put before each text (of a pair, before the first).
            prompt: the prompt itself, "" for none; overrides `prompt_name` and the model's default.
            batch_size: most texts in one forward pass; by default only the number of tokens is limited.
            show_progress_bar: show one on a terminal.
            output_value: "sentence_embedding"; "token_embeddings" for a list of (tokens, dim) tensors, neither
                truncated nor normalized; None for a list of dictionaries with both, ids, mask and token types.
            precision: "float32", or "int8", "uint8", "binary", "ubinary" as in `quantize_embeddings`, over all texts of
                the call. Token embeddings are then arrays.
            convert_to_numpy: return an array; if False, a list of tensors.
            convert_to_tensor: return one tensor; overrides `convert_to_numpy`.
            device: move the model there first. For several devices, a process is started on each for this call.
            normalize_embeddings: scale each embedding to length 1, after `truncate_dim`.
            truncate_dim: slice embeddings up to this dimension; a negative number counts from the end.
            pool: processes to embed in, from `start_multi_process_pool`.
            chunk_size: most texts sent to a process at once.
            out: float32 array or memory map of shape (texts, dim) to fill and return.

        Returns:
            (texts, dim), or (dim,) for a single text: float32 unless `precision` says otherwise. Rows are in the
            order of the inputs. Equal texts get equal rows up to 1e-6, whatever they are batched with. Tensors are
            ordinary ones, on the model's device, or on the CPU if they were made in other processes.

        Raises:
            InputTypeError: an input is not a text or a pair.
            InputError: a text is too long and `truncation` is "error", or `out` has another shape or dtype.
            ConfigError: an unknown prompt name or precision, a batch size below 1, a `truncate_dim` that leaves no
                dimensions, options that exclude each other.
            PoolError: a process ended, or `pool` was started for another model.
        """
        if inputs is not None and sentences is not None:
            raise ConfigError("got both inputs and sentences; expected one of them: they are two names for the texts")
        texts, single = read_inputs(inputs if sentences is None else sentences)
        options = EncodeOptions(
            prompt=self.prompt_text(prompt, prompt_name),
            batch_size=batch_size,
            output_value=output_value,
            precision="float32" if precision is None else precision,
            normalize=normalize_embeddings,
            truncate_dim=truncate_dim if truncate_dim is not None else self.truncate_dim,
        )
        shape = len(texts), self.dimension(options.truncate_dim)
        check_count("chunk_size", chunk_size, otherwise="None to choose one")
        as_array = convert_to_numpy and not convert_to_tensor
        with self._pool(pool, device) as workers:
            run: Run
            if workers is None:
                run = EncodingRun(self, texts, options, progress=bool(show_progress_bar))
            else:
                run = PoolRun(workers, texts, options, chunk_size=chunk_size, progress=bool(show_progress_bar))
            target = torch.device("cpu") if as_array else run.device
            result: Any = collect(run, allocate(shape, options, device=target, out=out))
        if options.precision != "float32":
            result, out = quantize(result, options.precision), None
        if isinstance(result, Tensor) and as_array:
            result = result.numpy() if out is None else out
        elif isinstance(result, Tensor) and not convert_to_tensor:
            result = list(result)
        if run.truncated:
            self.report_truncation(run.truncated, len(texts), stacklevel=3)
        return result[0] if single else result

    def encode_query(self, inputs: Inputs | None = None, **options: Unpack[EncodeKeywords]) -> Any:
        """`encode` with the prompt "query", unless `prompt` or `prompt_name` is given."""
        return self._encode_as(("query",), inputs, options)

    def encode_document(self, inputs: Inputs | None = None, **options: Unpack[EncodeKeywords]) -> Any:
        """`encode` with the first prompt in `prompts` of "document", "passage", "corpus", unless one is given.

        As in the reference, an empty text counts, and "document" is empty unless its files or you say otherwise.
        """
        return self._encode_as(("document", "passage", "corpus"), inputs, options)

    def encode_iter(
        self,
        inputs: Iterable[Text],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        block_size: int = BLOCK,
    ) -> Iterator[NDArray[np.float32]]:
        """Embed a stream of texts in constant memory, in blocks of `block_size` texts: float32, (block, dim) each."""
        if isinstance(inputs, str):
            raise InputTypeError("got one text to embed in blocks; expected several: put it in a list, or use encode")
        check_count("block_size", block_size, otherwise="leave it out")
        try:
            stream = iter(inputs)
        except TypeError:
            raise InputTypeError(
                f"got {inputs!r} to embed in blocks; expected texts: pass a list or a stream"
            ) from None
        while texts := list(islice(stream, min(block_size or sys.maxsize, sys.maxsize))):
            yield self.encode(
                texts,
                prompt_name=prompt_name,
                prompt=prompt,
                batch_size=batch_size,
                normalize_embeddings=normalize_embeddings,
                truncate_dim=truncate_dim,
            )

    # ---- several processes ----------------------------------------------------------------------------------------

    def start_multi_process_pool(self, target_devices: Sequence[str | torch.device] | None = None) -> EncodingPool:
        """Start one process for each device, for `encode(..., pool=pool)`. See `EncodingPool`."""
        return EncodingPool(self, target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: EncodingPool) -> None:
        """End the processes of a pool."""
        pool.close()

    # ---- helpers of encode ----------------------------------------------------------------------------------------

    def _pool(self, pool: EncodingPool | None, device: Device | None) -> AbstractContextManager[EncodingPool | None]:
        """Choose where to embed: in a pool, which is closed after the call if it was made for it, or in this process.

        In this process the model is moved to `device`.
        """
        if pool is not None:
            if device is not None:
                raise ConfigError(f"got a pool and device={device!r}; expected one of them: a pool has its own devices")
            pool.check_model(self)
            return nullcontext(pool)
        if device is None or isinstance(device, (str, torch.device)):
            if device is not None:  # walking through all modules takes longer than embedding a short text
                self.to(usable_device(device))
            return nullcontext()
        if not isinstance(device, Sequence):
            raise ConfigError(f"got device={device!r}; expected cpu, cuda or mps, or a list of them: pass a name")
        return EncodingPool(self, device)

    def _encode_as(self, names: tuple[str, ...], inputs: Inputs | None, options: EncodeKeywords) -> Any:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self.prompts), None)
        return self.encode(inputs, **options)
