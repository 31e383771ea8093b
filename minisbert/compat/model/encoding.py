"""The reference's `encode` and what goes with it, in the order of its arguments."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import numpy as np
import torch
from torch import Tensor

from ...errors import warn
from ...model.embedding_model import Device, Inputs
from ...model.encoding import OutputValue
from ...model.pool import EncodingPool
from ...sentence_transformer import SentenceTransformer as OurSentenceTransformer
from ...similarity import Embeddings, Precision
from ..old_names import old_names, refuse_more
from ..util.similarities import notice_few

_USUAL_BATCH = 32
_OTHERS = (torch.float16, torch.bfloat16, torch.float64)  # than float32, in which minisbert returns embeddings
_KNOWN = ("task", "out")  # beside the arguments in the signature
Options = ParamSpec("Options")


def _with_arguments_of(
    function: Callable[Options, Any],
) -> Callable[[Callable[[Any, dict[str, Any]], Any]], Callable[Options, Any]]:
    """Give a method the signature of another one, and its arguments in a dictionary by name, with the defaults."""
    signature = inspect.signature(function)

    def decorate(method: Callable[[Any, dict[str, Any]], Any]) -> Callable[Options, Any]:
        @functools.wraps(method)
        def binding(*args: Options.args, **kwargs: Options.kwargs) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{method.__qualname__}() {error}") from None
            bound.apply_defaults()
            options = bound.arguments
            options.update(options.pop("kwargs"))
            return method(options.pop("self"), options)

        binding.__dict__["__signature__"] = signature
        binding.__annotations__ = dict(function.__annotations__)
        return binding

    return decorate


class EncodingMethods(OurSentenceTransformer):
    """`encode`, `encode_query`, `encode_document`, `encode_multi_process`, and similarities."""

    @old_names(sentences="inputs")
    def encode(  # type: ignore[override]  # arguments by their place, and others beside ours
        self,
        inputs: Inputs,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = _USUAL_BATCH,
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
        **kwargs: Any,
    ) -> Any:
        """Embed texts; see `minisbert.SentenceTransformer.encode`.

        Args:
            inputs: one text or several; `sentences` is an older name.
            prompt_name: name of the prompt to put before each text.
            prompt: the prompt itself.
            batch_size: most texts in one forward pass. For 32, which is the default, minisbert chooses.
            show_progress_bar: by default only if the program logs at level INFO or below.
            output_value: "sentence_embedding", "token_embeddings", or None for both, with ids and mask.
            precision: "float32", "int8", "uint8", "binary" or "ubinary".
            convert_to_numpy: return an array, not a list of tensors.
            convert_to_tensor: return one tensor.
            device: move the model there first; for several devices a process is started on each.
            normalize_embeddings: scale each embedding to length 1.
            truncate_dim: keep only this many leading dimensions.
            pool: processes to embed in.
            chunk_size: most texts sent to a process at once.
            kwargs: `out`, an array to fill; `task` and `processing_kwargs=None`, which make no difference.

        Returns:
            As in minisbert, but embeddings have the dtype of the model; arrays have float32 for bfloat16.
        """
        if isinstance(prompt_name, int):
            warn(f"got {prompt_name} as prompt_name, and took it as batch_size: up to version 2 it was in that place")
            prompt_name, batch_size = None, prompt_name
        more = {name: value for name, value in kwargs.items() if value is not None}
        refuse_more("encode", more, known=_KNOWN, names=_ARGUMENTS)
        out = kwargs.get("out")
        if show_progress_bar is None:
            level = logging.getLogger("sentence_transformers").getEffectiveLevel()
            show_progress_bar = level in (logging.INFO, logging.DEBUG)
        found = super().encode(
            _texts(inputs),
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=None if batch_size == _USUAL_BATCH else batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
            out=out,
        )
        if precision in ("int8", "uint8") and output_value is not None:
            of_tokens = output_value == "token_embeddings" and isinstance(found, list)
            notice_few(sum(map(len, found)) if of_tokens else len(found), precision)
        if output_value is None:
            for one in [found] if isinstance(found, dict) else found:
                one["modality"] = "text"
        other = precision in ("float32", None) and self.dtype in _OTHERS
        return _as_dtype(found, self.dtype) if other and out is None else found

    @old_names(sentences="inputs")
    @_with_arguments_of(encode)
    def encode_query(self, options: dict[str, Any]) -> Any:  # type: ignore[override]
        """`encode` with the prompt "query", unless one is given; see there for the arguments."""
        return self._encode_as(("query",), options.pop("inputs"), options)

    @old_names(sentences="inputs")
    @_with_arguments_of(encode)
    def encode_document(self, options: dict[str, Any]) -> Any:  # type: ignore[override]
        """`encode` with the prompt for documents, unless one is given; see there for the arguments."""
        return self._encode_as(("document", "passage", "corpus"), options.pop("inputs"), options)

    def encode_multi_process(
        self,
        sentences: Inputs,
        pool: EncodingPool,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = _USUAL_BATCH,
        chunk_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: Precision | None = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        """Embed texts in several processes: the older form of `encode(..., pool=pool)`; see there."""
        return self.encode(
            sentences,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            chunk_size=chunk_size,
            show_progress_bar=show_progress_bar,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
        )

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Similarity of every row to every row: (n, d) and (m, d) to (n, m)."""
        return super().similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Similarity of each row to the same row: (n, d) and (n, d) to (n,)."""
        return super().similarity_pairwise(embeddings1, embeddings2)

    def prompt_text(self, prompt: str | None, name: str | None) -> str:
        """Return the prompt to use; a default that `prompts` does not have is no error here, and no prompt."""
        made = "model_card_data" in self.__dict__  # in the constructor it is an error
        if made and prompt is None and name is None and self.default_prompt_name not in (None, *self.prompts):
            warn(
                f"the default prompt {self.default_prompt_name!r} is none of {sorted(self.prompts)}: no prompt is used"
            )
            return ""
        return super().prompt_text(prompt, name)


_ARGUMENTS = [name for name in inspect.signature(EncodingMethods.encode).parameters if name not in ("self", "kwargs")]


def _texts(inputs: Any) -> Any:
    """Return inputs of dictionaries with nothing but a text as texts; others as they are."""
    if isinstance(inputs, Mapping):
        return _text(inputs)
    if isinstance(inputs, Sequence) and not isinstance(inputs, str) and any(isinstance(one, Mapping) for one in inputs):
        return [_text(one) for one in inputs]
    return inputs


def _text(one: Any) -> Any:
    return one["text"] if isinstance(one, Mapping) and set(one) == {"text"} else one


def _as_dtype(found: Any, dtype: torch.dtype) -> Any:
    """Return embeddings in the dtype of the model; NumPy has no bfloat16."""
    if isinstance(found, np.ndarray):
        return found if dtype == torch.bfloat16 else found.astype(str(dtype).removeprefix("torch."))
    if isinstance(found, Tensor):
        return found.to(dtype) if found.is_floating_point() else found
    if isinstance(found, dict):
        return {name: _as_dtype(value, dtype) for name, value in found.items()}
    return [_as_dtype(one, dtype) for one in found] if isinstance(found, list) else found
