"""`EmbeddingModel`: find and load a model, and embed texts with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..distributed import shares
from ..errors import ConfigError, InputTypeError, check_count
from ..modules.encoder import Encoder
from ..modules.lora import LoraConfig
from ..modules.persistence import read_modules
from ..similarity import Precision, SimilarityFunction
from ..storage.layout import ModelSettings, check_loading, read_layout, with_loading
from ..storage.locate import find_model, repository_name
from ..text import Text, read_inputs
from .devices import usable_device
from .encoding import BLOCK, EncodeOptions, EncodingRun, OutputValue, Run, allocate, collect, quantize
from .pool import EncodingPool, PoolRun
from .saving import SavedModel
from .stack import Truncation

# One text; or several texts and pairs of texts: a list, a tuple, an array, a pandas.Series.
Inputs: TypeAlias = "str | Sequence[Text] | NDArray[Any]"
Device: TypeAlias = "str | torch.device | Sequence[str | torch.device]"
DType: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,  # of all weights but those of the linear layers, and of a saved model
}

Options = ParamSpec("Options")
Model = TypeVar("Model", bound="EmbeddingModel")


def _with_options_of(function: Callable[Options, Any]) -> Callable[[Callable[..., Any]], Callable[Options, Any]]:
    """Show type checkers the arguments of `function` as those of the decorated one, which hands them on."""
    return lambda decorated: decorated


class EmbeddingModel(SavedModel):
    """Loads, runs and saves a sentence-embedding model.

    Args:
        model_name_or_path: a model folder, or a name such as "all-MiniLM-L6-v2", looked up in the Hugging Face cache,
            among installed packages, and then on the Hub.
        modules: build the model from these instead.
        device: where it runs; by default CUDA, then Apple's MPS, then the CPU.
        prompts: texts by name that are put before inputs; they replace the saved ones of the same names.
        default_prompt_name: the prompt used where a call names none.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        truncate_dim: keep only this many leading dimensions of each embedding.
        cache_folder: Hugging Face cache to use.
        revision: branch, tag or commit on the Hub.
        local_files_only: never ask the Hub.
        token: Hub access token.
        dtype: "float32", "bfloat16" or "float16"; by default that of the saved weights. "int8" quantizes the linear
            layers of a native encoder, on the CPU, for inference. To save such a model, the folder it was loaded from
            must still be there.
        truncation: what to do when texts are longer than `max_seq_length`: "warn" once, raise an "error", or only
            "count" them in `truncated_texts`.
        trust_remote_code: makes no difference: no code of a model is run.
        backend: only "torch".
        model_kwargs: the reference's arguments for loading; see `check_loading`.
        processor_kwargs: see there.
        tokenizer_kwargs: see there.
        config_kwargs: see there.

    Raises:
        ModelError: the model cannot be found or read.
        ConfigError: an argument has an impossible value.
    """

    training_record: object = None  # set by `Trainer`, for the model card
    origin: object = None  # set by a distillation, for the model card

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        modules: Sequence[nn.Module] | None = None,
        device: str | torch.device | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        cache_folder: str | Path | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        dtype: DType | None = None,
        truncation: Truncation = "warn",
        trust_remote_code: bool = False,
        backend: str = "torch",
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        loading = check_loading(
            backend=backend,
            model_kwargs=model_kwargs,
            processor_kwargs=processor_kwargs,
            tokenizer_kwargs=tokenizer_kwargs,
            config_kwargs=config_kwargs,
        )
        if dtype is not None and (not isinstance(dtype, str) or dtype not in _DTYPES):
            raise ConfigError(f"got dtype={dtype!r}; expected one of the strings {', '.join(map(repr, _DTYPES))}")
        names = {"default_prompt_name": default_prompt_name, "similarity_fn_name": similarity_fn_name}
        for option, name in names.items():
            if name is not None and not isinstance(name, str):
                raise ConfigError(f"got {option}={name!r}; expected a string: pass a name")
        if prompts is not None and not isinstance(prompts, Mapping):
            raise ConfigError(f"got prompts={prompts!r}; expected strings by name: pass a dict")
        settings = ModelSettings()
        self._card = base_model = base_revision = None
        if modules is None and model_name_or_path is not None:
            folder = find_model(
                model_name_or_path,
                revision=revision,
                cache_folder=cache_folder,
                local_files_only=local_files_only,
                token=token,
            )
            layout = with_loading(read_layout(folder), loading)
            modules, settings, self._card = read_modules(layout), layout.settings, layout.card
            if not Path(model_name_or_path).expanduser().is_dir():
                base_model = repository_name(str(model_name_or_path))
                base_revision = folder.name if folder.parent.name == "snapshots" else None
        elif modules is None or model_name_or_path is not None:
            got = "neither a model nor modules" if modules is None else "both a model and modules"
            raise ConfigError(f"got {got}; expected either the name or folder of a model, or modules=[...]")
        known = settings.similarity_fn_name in SimilarityFunction.possible_values()
        settings = replace(
            settings,
            prompts={**settings.prompts, **(prompts or {})},
            default_prompt_name=default_prompt_name or settings.default_prompt_name,
            similarity_fn_name=similarity_fn_name or (settings.similarity_fn_name if known else None),
            truncate_dim=truncate_dim if truncate_dim is not None else settings.truncate_dim,
        )
        super().__init__(modules, settings, truncation=truncation)
        self.base_model, self.base_model_revision = base_model, base_revision
        self._other_settings = settings.other
        encoder = self.transformer.encoder
        saved_dtype = next(self.parameters()).dtype
        self.to(device=usable_device(device), dtype=_DTYPES[dtype] if dtype else None)
        self.eval()
        native = encoder if isinstance(encoder, Encoder) and self.device.type == "cpu" else None
        if dtype == "int8":
            if native is None:
                got = f"an encoder on {self.device}" if isinstance(encoder, Encoder) else type(encoder).__name__
                raise ConfigError(
                    f"got dtype='int8' for {got}; expected a native encoder on the CPU: choose another dtype"
                )
            self.transformer.quantize()
        elif model_name_or_path is not None and native is not None and next(native.parameters()).dtype != saved_dtype:
            native.align_weights()  # again, since the conversion has scattered them

    # ---- embeddings -------------------------------------------------------------------------------------------------

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
        if chunk_size is not None:
            check_count(chunk_size, "chunk_size", otherwise="None to choose one")
        as_array = convert_to_numpy and not convert_to_tensor
        with self._pool(pool, device) as workers:
            run: Run
            if workers is not None:
                run = PoolRun(workers, texts, options, chunk_size=chunk_size, progress=bool(show_progress_bar))
            elif shares(len(texts)) and output_value == "sentence_embedding":
                from .shared import SharedRun  # only several processes need it

                run = SharedRun(self, texts, options, progress=bool(show_progress_bar))
            else:
                run = EncodingRun(self, texts, options, progress=bool(show_progress_bar))
            target = torch.device("cpu") if as_array else run.device
            result: Any = collect(run, allocate(shape, options, device=target, out=out))
        if options.precision != "float32":
            result, out = quantize(result, options.precision), None
        if isinstance(result, Tensor) and as_array:
            result = result.numpy() if out is None else out
        elif isinstance(result, Tensor) and not convert_to_tensor:
            result = list(result)
        if run.truncated:
            self.report_truncation(run.truncated, len(texts))
        return result[0] if single else result

    @_with_options_of(encode)
    def encode_query(self, inputs: Inputs | None = None, **options: Any) -> Any:
        """`encode` with the prompt "query", unless `prompt` or `prompt_name` is given."""
        return self._encode_as(("query",), inputs, options)

    @_with_options_of(encode)
    def encode_document(self, inputs: Inputs | None = None, **options: Any) -> Any:
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
        check_count(block_size, "block_size")
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

    # ---- several processes ------------------------------------------------------------------------------------------

    def start_multi_process_pool(self, target_devices: Sequence[str | torch.device] | None = None) -> EncodingPool:
        """Start one process for each device, for `encode(..., pool=pool)`. See `EncodingPool`."""
        return EncodingPool(self, target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: EncodingPool) -> None:
        """End the processes of a pool."""
        pool.close()

    # ---- helpers of encode ------------------------------------------------------------------------------------------

    def _pool(self, pool: EncodingPool | None, device: Device | None) -> AbstractContextManager[EncodingPool | None]:
        """Choose where to embed: in a pool, which is closed after the call if it was made for it, or in this process.

        In this process the model is moved to `device`.
        """
        if pool is not None:
            if device is not None:
                raise ConfigError(f"got a pool and device={device!r}; expected one of them: a pool has its own devices")
            if not isinstance(pool, EncodingPool):
                raise ConfigError(f"got pool={pool!r}; expected one of processes: pass start_multi_process_pool()")
            pool.check_model(self)
            return nullcontext(pool)
        if device is None or isinstance(device, (str, torch.device)):
            if device is not None:  # walking through all modules takes longer than embedding a short text
                self.to(usable_device(device))
            return nullcontext()
        if not isinstance(device, Sequence):
            raise ConfigError(f"got device={device!r}; expected cpu, cuda or mps, or a list of them: pass a name")
        return EncodingPool(self, device)

    def _encode_as(self, names: tuple[str, ...], inputs: Inputs | None, options: dict[str, Any]) -> Any:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self.prompts), None)
        return self.encode(inputs, **options)

    # ---- adapters ---------------------------------------------------------------------------------------------------

    def add_adapter(self, config: LoraConfig) -> None:
        """Freeze the encoder, and put a new LoRA adapter on it, which changes nothing until it is trained.

        Modules after the encoder are trained as before. The model must have the weights of its folder: what is saved
        is the adapter, without them.

        Args:
            config: rank, layers and the like, by PEFT's names.

        Raises:
            ConfigError: the encoder is not a native one with float weights as they were loaded, or it has an adapter,
                or no layer has a name that is asked for.
        """
        if not isinstance(config, LoraConfig):
            raise ConfigError(
                f"got {type(config).__module__}.{type(config).__name__} as adapter; expected minisbert's own: pass "
                f"minisbert.LoraConfig(r=8, lora_alpha=16)"
            )
        self.transformer.add_adapter(config, base=self.base_model, revision=self.base_model_revision)

    def load_adapter(self, folder: str | Path) -> None:
        """Freeze the encoder, and put a saved LoRA adapter on it, such as one of PEFT, to train it further.

        Args:
            folder: holds adapter_config.json and the adapter's weights.

        Raises:
            ConfigError: as for `add_adapter`.
            ModelError: the adapter cannot be read, or does not fit the encoder.
        """
        self.transformer.load_adapter(Path(folder), base=self.base_model, revision=self.base_model_revision)

    def merge_and_unload(self: Model) -> Model:
        """Add the adapter to the weights of its base, in place; all of them can be trained again.

        Raises:
            ConfigError: there is no adapter.
        """
        self.transformer.merge_adapter()
        return self
