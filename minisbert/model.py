"""An ordered list of modules that turns texts into embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .card import CardFacts, TrainingFacts, render_card, versions
from .encoding import BLOCK, EmbeddingRun, per_text
from .errors import ConfigError, InputError, InputTypeError, ModelError, TruncationWarning
from .modules import Dense, Pooling, Transformer
from .modules.features import Features
from .modules.persistence import read_modules, write_module
from .similarity import Embeddings, Precision, SimilarityFunction, quantize_embeddings
from .storage.files import replacing_folder
from .storage.layout import ModelSettings, read_layout, write_modules, write_settings
from .storage.locate import find_model
from .text import check_texts

Truncation: TypeAlias = Literal["warn", "error", "count"]
DType: TypeAlias = Literal["float32", "bfloat16", "float16"]
_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class EmbeddingModel(nn.Sequential):
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
        dtype: "float32", "bfloat16" or "float16"; by default what the weights are saved in.
        truncation: what happens when texts are longer than `max_seq_length`: "warn" once, raise an "error", or only
            "count" them in `truncated_texts`.

    Raises:
        ModelError: the model cannot be found or read.
        ConfigError: an argument has an impossible value.
    """

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
    ) -> None:
        if (model_name_or_path is None) == (modules is None):
            raise ConfigError("expected either the name or folder of a model, or modules=[...]")
        if truncation not in ("warn", "error", "count"):
            raise ConfigError(f"got truncation {truncation!r}; expected warn, error or count")
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f"got dtype {dtype!r}; expected {', '.join(_DTYPES)}")
        settings, card, base_model = ModelSettings(), None, None
        if modules is None:
            folder = find_model(
                cast("str | Path", model_name_or_path),
                revision=revision,
                cache_folder=cache_folder,
                local_files_only=local_files_only,
                token=token,
            )
            modules, settings, card = _load(folder)
            base_model = None if Path(cast("str | Path", model_name_or_path)).is_dir() else str(model_name_or_path)
        super().__init__(*modules)
        self.prompts: dict[str, str] = {"query": "", "document": "", **settings.prompts, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or settings.default_prompt_name
        if self.default_prompt_name is not None:
            self._prompt(None, self.default_prompt_name)
        self.similarity_fn_name = similarity_fn_name or _known_similarity(settings.similarity_fn_name)
        self.truncate_dim = truncate_dim if truncate_dim is not None else settings.truncate_dim
        self.truncation: Truncation = truncation
        self.truncated_texts = 0
        self.training_facts: TrainingFacts | None = None
        self._base_model = base_model
        self._other_settings = settings.other
        self._card = card
        self._warned_truncation = False
        self.to(device=_usable_device(device), dtype=_DTYPES[dtype] if dtype else None)
        self.eval()

    # ---- what the model is ----------------------------------------------------------------------------------------

    @property
    def transformer(self) -> Transformer:
        """The first module: tokenizer and encoder."""
        first = self[0]
        if not isinstance(first, Transformer):
            raise ModelError(f"the first module is a {type(first).__name__}; expected a Transformer")
        return first

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` behind the model. Do not configure it: it is shared by all calls."""
        return self.transformer.tokenizer.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens, special tokens included; what is beyond is cut off."""
        return self.transformer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.transformer.max_seq_length = value

    @property
    def similarity_fn_name(self) -> str:
        """Name of the similarity the embeddings are made for."""
        return self._similarity.value

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str | SimilarityFunction) -> None:
        self._similarity = SimilarityFunction.of(name)

    def get_sentence_embedding_dimension(self) -> int:
        """Size of an embedding, after `truncate_dim`."""
        dimension = self.transformer.embedding_dimension
        for module in self:
            if isinstance(module, Pooling):
                dimension = module.output_dimension
            elif isinstance(module, Dense):
                dimension = module.linear.out_features
        return dimension if self.truncate_dim is None else min(dimension, self.truncate_dim)

    get_embedding_dimension = get_sentence_embedding_dimension

    def count_tokens(self, texts: str | Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text before any cut, special tokens included: int64, (texts,)."""
        return self.transformer.tokenizer.count(check_texts([texts] if isinstance(texts, str) else texts))

    def forward(self, features: Features) -> Features:
        """Run a packed batch through all modules."""
        for module in self:
            features = module(features)
        return features

    # ---- texts to embeddings --------------------------------------------------------------------------------------

    def encode(
        self,
        inputs: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> Any:
        """Embed texts.

        Args:
            inputs: one text or several.
            prompt_name: name of the prompt to put before each text.
            prompt: the prompt itself; goes before `prompt_name` and the model's default.
            batch_size: most texts in one forward pass; by default only the number of tokens is bounded.
            show_progress_bar: show one on a terminal.
            output_value: "sentence_embedding"; "token_embeddings" for a list of (tokens, dim) tensors; None for a
                list of dictionaries with both, the ids and the mask.
            precision: "float32", or "int8", "uint8", "binary", "ubinary" as in `quantize_embeddings`.
            convert_to_numpy: return an array; if False, a list of tensors.
            convert_to_tensor: return one tensor; goes before `convert_to_numpy`.
            device: move the model there first.
            normalize_embeddings: scale each embedding to length 1, after `truncate_dim`.
            truncate_dim: keep only this many leading dimensions.
            out: float32 array or memory map of shape (texts, dim) to fill and return.

        Returns:
            (texts, dim), or (dim,) for a single text: float32 unless `precision` says otherwise. Rows are in the
            order of the inputs. Equal texts get equal rows up to 1e-6, whatever they are batched with.

        Raises:
            InputTypeError: an input is not a text.
            InputError: a text is too long and `truncation` is "error", or `out` does not fit.
            ConfigError: an unknown prompt name or precision, or a batch size below 1.
        """
        single = isinstance(inputs, str)
        texts = check_texts([inputs] if isinstance(inputs, str) else inputs)
        dim = truncate_dim if truncate_dim is not None else self.truncate_dim
        self.to(_usable_device(device or self.device))
        self.eval()
        run = EmbeddingRun(
            self,
            self.transformer.tokenizer,
            self.device,
            texts,
            prompt=self._prompt(prompt, prompt_name),
            batch_size=batch_size,
            progress=bool(show_progress_bar),
        )
        result: Any
        if output_value == "sentence_embedding":
            in_array = convert_to_numpy and not convert_to_tensor
            result = self._fill(run, len(texts), dim, normalize=normalize_embeddings, out=out, on_cpu=in_array)
            precision = precision or "float32"
            if precision != "float32":
                result = torch.from_numpy(quantize_embeddings(result, precision))
            if in_array:
                result = out if out is not None and precision == "float32" else result.numpy()
            elif not convert_to_tensor:
                result = list(result)
        elif output_value in (None, "token_embeddings"):
            result = per_text(run, len(texts), output_value, dim, normalize=normalize_embeddings)
        else:
            raise ConfigError(
                f"got output_value {output_value!r}; expected sentence_embedding, token_embeddings or None"
            )
        self.report_truncation(run.truncated, len(texts))
        return result[0] if single else result

    def encode_iter(
        self,
        inputs: Iterable[str],
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
        stream = iter(inputs)
        while texts := list(islice(stream, block_size)):
            yield self.encode(
                texts,
                prompt_name=prompt_name,
                prompt=prompt,
                batch_size=batch_size,
                normalize_embeddings=normalize_embeddings,
                truncate_dim=truncate_dim,
            )

    def encode_query(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """`encode` with the prompt "query", unless `prompt` or `prompt_name` is given."""
        return self._encode_as(("query",), inputs, options)

    def encode_document(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """`encode` with the first prompt there is of "document", "passage", "corpus", unless one is given."""
        return self._encode_as(("document", "passage", "corpus"), inputs, options)

    def similarity(self, a: Embeddings, b: Embeddings) -> Tensor:
        """Similarity of every row of `a` to every row of `b`: (n, d) and (m, d) to float32 (n, m)."""
        return self._similarity.matrix(a, b)

    def similarity_pairwise(self, a: Embeddings, b: Embeddings) -> Tensor:
        """Similarity of each row of `a` to the same row of `b`: (n, d) and (n, d) to float32 (n,)."""
        return self._similarity.pairwise(a, b)

    @contextmanager
    def truncate_sentence_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Set `truncate_dim` for a block of code."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def report_truncation(self, truncated: int, texts: int) -> None:
        """Count cut texts and warn once, or raise, as `truncation` says.

        Raises:
            InputError: texts were cut and `truncation` is "error".
        """
        if not truncated:
            return
        message = (
            f"{truncated} of {texts} texts are longer than max_seq_length={self.max_seq_length} tokens; what is beyond "
            f"is cut off: raise max_seq_length, split the texts, or pass truncation='count'"
        )
        if self.truncation == "error":
            raise InputError(message)
        self.truncated_texts += truncated
        if self.truncation == "warn" and not self._warned_truncation:
            self._warned_truncation = True
            warnings.warn(message, TruncationWarning, stacklevel=4)

    # ---- saving ---------------------------------------------------------------------------------------------------

    def save_pretrained(
        self, path: str | Path, *, model_name: str | None = None, create_model_card: bool = True
    ) -> None:
        """Write the model in the layout that sentence-transformers 4, 5 and 6 read.

        Args:
            path: the folder to write; files of other names in it stay.
            model_name: the name the model card shows, such as "me/my-model".
            create_model_card: write README.md. A loaded model that was not trained keeps its own.

        Raises:
            InputError: the folder cannot be written.
        """
        with replacing_folder(Path(path)) as folder:
            folders = write_modules(folder, [type(module).__name__ for module in self])
            for module, place in zip(self, folders, strict=True):
                write_module(module, place)
            settings = ModelSettings(
                self.prompts,
                self.default_prompt_name,
                self.similarity_fn_name,
                self.truncate_dim,
                self._other_settings,
            )
            write_settings(folder, settings, versions=versions())
            if create_model_card:
                kept = self._card if self.training_facts is None else None
                text = kept or render_card(self._card_facts(model_name))
                (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")

    save = save_pretrained

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _fill(
        self,
        run: EmbeddingRun,
        texts: int,
        truncate_dim: int | None,
        *,
        normalize: bool,
        out: NDArray[np.float32] | None,
        on_cpu: bool,
    ) -> Tensor:
        """All embeddings of a run in one tensor, that of `out` if it is given: float32, (texts, dim)."""
        with self.truncate_sentence_embeddings(None):
            shape = (texts, len(range(self.get_sentence_embedding_dimension())[:truncate_dim]))
        if out is not None and (out.shape != shape or out.dtype != np.float32):
            raise InputError(f"got out of shape {out.shape} and type {out.dtype}; expected {shape} float32")
        filled = torch.empty(shape, device="cpu" if on_cpu else self.device) if out is None else torch.from_numpy(out)
        for batch in run:
            rows = torch.from_numpy(batch.rows).to(filled.device)
            filled[rows] = batch.sentences(truncate_dim, normalize=normalize).to(filled.device)
        return filled

    def _encode_as(self, names: tuple[str, ...], inputs: str | Sequence[str], options: dict[str, Any]) -> Any:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            # With no such prompt, the name's empty text is used, and not the model's default prompt.
            options["prompt_name"] = next((name for name in names if self.prompts.get(name)), names[0])
        return self.encode(inputs, **options)

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        name = name if name is not None else self.default_prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise ConfigError(f"got prompt name {name!r}; expected one of {sorted(self.prompts)}")
        return self.prompts[name]

    def _card_facts(self, model_name: str | None) -> CardFacts:
        return CardFacts(
            model_name=model_name,
            base_model=self._base_model,
            max_seq_length=self.max_seq_length,
            dimension=self.get_sentence_embedding_dimension(),
            similarity=self.similarity_fn_name,
            architecture=repr_modules(self),
            training=self.training_facts,
        )


def repr_modules(model: EmbeddingModel) -> str:
    """The modules of a model, one a line."""
    lines = []
    for index, module in enumerate(model):
        settings = module.extra_repr()
        lines.append(f"({index}) {type(module).__name__}({settings})")
    return "\n".join(lines)


def _load(folder: Path) -> tuple[list[nn.Module], ModelSettings, str | None]:
    layout = read_layout(folder)
    return read_modules(layout), layout.settings, layout.card


def _known_similarity(saved: str | None) -> str:
    names = [member.value for member in SimilarityFunction]
    return saved if saved in names else SimilarityFunction.COSINE.value


def _usable_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"got device {device!r}, which cannot be used here ({reason}); expected cpu, cuda or mps"
        ) from None
    return found
