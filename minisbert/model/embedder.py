"""How texts become embeddings: `encode` and its relatives."""

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
from ..similarity import PRECISIONS, Precision
from ..text import Text, read_inputs
from .devices import usable_device
from .encoding import BLOCK, EncodeOptions, OutputValue, Run, check_count, collect, quantized, room_for, start_run
from .pool import EncodingPool, PoolRun
from .stack import ModuleStack

# One text; or several texts and pairs of texts: a list, a tuple, an array, a pandas.Series.
Inputs: TypeAlias = "str | Sequence[Text] | NDArray[Any]"
Device: TypeAlias = "str | torch.device | Sequence[str | torch.device]"

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class EncodeKeywords(TypedDict, total=False):
        """What `encode` takes by keyword."""

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
            prompt: the prompt itself, "" for none; goes before `prompt_name` and the model's default.
            batch_size: most texts in one forward pass; by default only the number of tokens is bounded.
            show_progress_bar: show one on a terminal.
            output_value: "sentence_embedding"; "token_embeddings" for a list of (tokens, dim) tensors, neither
                truncated nor normalized; None for a list of dictionaries with both, ids, mask and token types.
            precision: "float32", or "int8", "uint8", "binary", "ubinary" as in `quantize_embeddings`, over all texts of
                the call. Token embeddings are then arrays.
            convert_to_numpy: return an array; if False, a list of tensors.
            convert_to_tensor: return one tensor; goes before `convert_to_numpy`.
            device: move the model there first. Several start a process on each, for this call.
            normalize_embeddings: scale each embedding to length 1, after `truncate_dim`.
            truncate_dim: slice embeddings up to this dimension; of a negative number, so many before the end.
            pool: processes to embed in, from `start_multi_process_pool`.
            chunk_size: most texts that a process is given at once.
            out: float32 array or memory map of shape (texts, dim) to fill and return.

        Returns:
            (texts, dim), or (dim,) for a single text: float32 unless `precision` says otherwise. Rows are in the
            order of the inputs. Equal texts get equal rows up to 1e-6, whatever they are batched with. Tensors are
            ordinary ones, on the model's device, or on the CPU if they were made in other processes.

        Raises:
            InputTypeError: an input is not a text or a pair.
            InputError: a text is too long and `truncation` is "error", or `out` does not fit.
            ConfigError: an unknown prompt name or precision, a batch size below 1, a `truncate_dim` that leaves
                nothing, options that exclude each other.
            PoolError: a process ended, or `pool` is of another model.
        """
        texts, single = read_inputs(_either(inputs, sentences))
        precision = "float32" if precision is None else precision
        if isinstance(batch_size, int) and batch_size > 0:
            batch_size = min(batch_size, max(1, len(texts)))  # a larger one need not fit into any number type
        options = EncodeOptions(
            prompt=self.prompt_text(prompt, prompt_name),
            batch_size=batch_size,
            output_value=output_value,
            normalize=normalize_embeddings,
            truncate_dim=truncate_dim if truncate_dim is not None else self.truncate_dim,
        )
        _check(options, precision, out)
        if options.truncate_dim is not None and not self.dimension(options.truncate_dim):
            raise ConfigError(
                f"got truncate_dim {options.truncate_dim} for {self.dimension(None)} dimensions; expected one that "
                f"leaves some: pass a number from 1, or None for all"
            )
        check_count("chunk_size", chunk_size, otherwise="None to choose one")
        in_array = convert_to_numpy and not convert_to_tensor
        run: Run
        with self._pool(pool, device) as workers:
            if workers is None:
                run = start_run(self, texts, options, progress=bool(show_progress_bar))
            else:
                run = PoolRun(workers, texts, options, chunk_size=chunk_size, progress=bool(show_progress_bar))
            place = torch.device("cpu") if in_array or workers is not None else self.device
            values = collect(run, room_for(self, len(texts), options, out=out, device=place))
        result: Any = values if precision == "float32" else quantized(values, precision)
        if isinstance(result, Tensor) and in_array:
            result = out if out is not None and precision == "float32" else result.numpy()
        elif isinstance(result, Tensor) and not convert_to_tensor:
            result = list(result)
        self.report_truncation(run.truncated, len(texts))
        return result[0] if single else result

    def encode_query(self, inputs: Inputs | None = None, **options: Unpack[EncodeKeywords]) -> Any:
        """`encode` with the prompt "query", unless `prompt` or `prompt_name` is given."""
        return self._encode_as(("query",), inputs, options)

    def encode_document(self, inputs: Inputs | None = None, **options: Unpack[EncodeKeywords]) -> Any:
        """`encode` with the first prompt there is of "document", "passage", "corpus", unless one is given."""
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
        """Embed a stream of texts in flat memory, in blocks of `block_size` texts: float32, (block, dim) each."""
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

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _pool(self, pool: EncodingPool | None, device: Device | None) -> AbstractContextManager[EncodingPool | None]:
        """The pool to embed in, which ends with this call if it was made for it; or else the model is moved."""
        if pool is not None:
            if device is not None:
                raise ConfigError(f"got a pool and device={device!r}; expected one of them: a pool has its devices")
            pool.check(self)
            return nullcontext(pool)
        if device is None or isinstance(device, (str, torch.device)):
            if device is not None:  # to go through all modules takes longer than to embed a short text
                self.to(usable_device(device))
            return nullcontext(None)
        if not isinstance(device, Sequence):
            raise ConfigError(f"got device {device!r}; expected cpu, cuda or mps, or a list of such: pass a name")
        return EncodingPool(self, device)

    def _encode_as(self, names: tuple[str, ...], inputs: Inputs | None, options: EncodeKeywords) -> Any:
        chosen = options.get("prompt") is not None or options.get("prompt_name") is not None
        if not chosen and names[0] in self.prompts:
            # With no such prompt, the name's empty text is used, and not the model's default prompt.
            options["prompt_name"] = next((name for name in names if self.prompts.get(name)), names[0])
        return self.encode(inputs, **options)


def _either(inputs: Inputs | None, sentences: Inputs | None) -> Any:
    if inputs is not None and sentences is not None:
        raise ConfigError("got both inputs and sentences; expected one of them: they are two names for the texts")
    return inputs if sentences is None else sentences


def _check(options: EncodeOptions, precision: str, out: NDArray[np.float32] | None) -> None:
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ConfigError(f"got precision {precision!r}; expected {', '.join(PRECISIONS)}")
    if precision != "float32" and options.output_value is None:
        raise ConfigError(f"got precision {precision!r} with output_value=None; expected an output_value to convert")
    if out is not None and options.output_value != "sentence_embedding":
        raise ConfigError(f"got out with output_value={options.output_value!r}; expected sentence_embedding")
