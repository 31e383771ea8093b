"""A model as a stack of modules that run one after the other, and its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError, InputError, InputTypeError, ModelError, TruncationWarning, shown, warn
from ..modules import Dense, Pooling, Transformer, WeightedLayerPooling
from ..modules.encoder import Encoder
from ..modules.features import Features
from ..modules.persistence import misfit
from ..similarity import Embeddings, SimilarityFunction
from ..storage.layout import ModelSettings
from ..storage.weights import tensors_digest
from ..text import Text, read_inputs, with_prompt
from .devices import make_fork_safe

Truncation: TypeAlias = Literal["warn", "error", "count"]


class ModuleStack(nn.Sequential):
    """Modules with prompts, a similarity function and a maximum length.

    Attributes:
        prompts: texts by name that are put before inputs.
        default_prompt_name: the prompt used where a call names none.
        truncate_dim: keep only this many leading dimensions of each embedding.
        truncation: "warn", "error" or "count": what to do when a text is longer than `max_seq_length`.
        truncated_texts: number of texts truncated so far.

    Raises:
        ConfigError: an impossible value.
    """

    def __init__(self, modules: Sequence[nn.Module], settings: ModelSettings, *, truncation: Truncation) -> None:
        if isinstance(modules, (str, bytes)) or not isinstance(modules, Iterable):
            raise ConfigError(
                f"got modules={shown(modules)}; expected a Transformer and the modules after it in a list"
            )
        for place, module in enumerate(modules):
            if not isinstance(module, nn.Module):
                raise ConfigError(f"got {shown(module)} as modules[{place}]; expected a module: pass modules=[...]")
        super().__init__(*modules)
        if not modules:
            raise ConfigError("got no modules; expected a Transformer and the modules after it: pass modules=[...]")
        _check_modules(modules)
        prompts = settings.prompts
        wrong = {name: text for name, text in prompts.items() if not (isinstance(name, str) and isinstance(text, str))}
        if wrong:
            raise ConfigError(f"got prompts={wrong!r}; expected strings by name")
        if not isinstance(truncation, str) or truncation not in ("warn", "error", "count"):
            raise ConfigError(f"got truncation={truncation!r}; expected warn, error or count")
        self.prompts: dict[str, str] = {"query": "", "document": "", **prompts}
        self.default_prompt_name = settings.default_prompt_name
        self.prompt_text(None, None)
        self.similarity_fn_name = settings.similarity_fn_name
        self.truncate_dim = settings.truncate_dim
        self.truncation: Truncation = truncation
        self.truncated_texts = 0
        self._warned_truncation = False

    # ---- the modules ----------------------------------------------------------------------------------------------

    def forward(self, features: Features) -> Features:
        """Run a packed batch through all modules.

        Raises:
            InputTypeError: `features` is something else.
        """
        if not isinstance(features, Features):
            raise InputTypeError(
                f"got a {type(features).__name__}; expected a packed batch (Features): call encode on texts instead"
            )
        make_fork_safe()
        if features.layer_embeddings is None and any(isinstance(module, WeightedLayerPooling) for module in self):
            features.layer_embeddings = []
        return self.after_transformer(self[0](features))

    def after_transformer(self, features: Features) -> Features:
        """Run token embeddings through the modules after the first."""
        for module in islice(self, 1, None):
            features = module(features)
        return features

    @property
    def transformer(self) -> Transformer:
        """The first module: tokenizer and encoder."""
        first = self[0]
        if not isinstance(first, Transformer):
            raise ModelError(f"the first module is a {type(first).__name__}; expected a Transformer")
        return first

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        encoder = self.transformer.encoder
        if isinstance(encoder, Encoder):  # finding the first of all parameters takes longer
            return encoder.embeddings.word.weight.device
        return next(encoder.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.parameters()).dtype

    def digest(self) -> str:
        """Digest the tokenizer, and the modules with their settings and weights; the same on every device."""
        modules = [f"{type(module).__name__}({module.extra_repr()})" for module in self]
        tokens = self.transformer.text_tokenizer.digest()
        about = f"{modules} {self.max_seq_length} {tokens} {tensors_digest(self.state_dict())}"
        return hashlib.sha256(about.encode()).hexdigest()

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Choose whether the tokens of a prompt count in pooling.

        Raises:
            ModelError: the model has no pooling.
        """
        pooling = next((module for module in self if isinstance(module, Pooling)), None)
        if pooling is None:
            raise ModelError("the model has no Pooling module; expected one to set include_prompt of")
        pooling.include_prompt = include_prompt

    # ---- texts and tokens -----------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` behind the model. Do not configure it: it is shared by all calls."""
        return self.transformer.text_tokenizer.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Most tokens of a text, special tokens included; longer texts are truncated."""
        return self.transformer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        if not hasattr(value, "__index__"):
            raise ConfigError(f"got max_seq_length={value!r}; expected a whole number of tokens")
        self.transformer.max_seq_length = value

    def get_max_seq_length(self) -> int:
        """`max_seq_length`."""
        return self.max_seq_length

    def count_tokens(self, inputs: str | Sequence[Text]) -> NDArray[np.int64]:
        """Tokens of each text before any cut, special tokens included: int64, (texts,)."""
        return self.transformer.text_tokenizer.count(read_inputs(inputs)[0])

    def preprocess(self, inputs: Sequence[Text], *, prompt: str | None = None) -> dict[str, Tensor]:
        """Token ids as the reference shows them, for a look at what the model sees.

        Returns:
            "input_ids", "attention_mask" and, if the model has them, "token_type_ids": int64, (texts, longest), padded
            on the right. No texts give an empty dictionary.

        Raises:
            InputTypeError: not a list of texts.
        """
        texts, single = read_inputs(inputs)
        if single:
            raise InputTypeError("got one text to tokenize; expected several: put it in a list")
        if not texts:
            return {}
        tokenizer = self.transformer.text_tokenizer
        tokenized = tokenizer(with_prompt(texts, prompt or ""))
        mask = np.arange(tokenized.lengths.max()) < tokenized.lengths[:, None]  # (texts, longest)
        ids = np.full(mask.shape, self.transformer.padding_token, np.int64)
        ids[mask] = tokenized.ids
        values = {"input_ids": ids}
        if tokenizer.token_types:
            values["token_type_ids"] = types = np.zeros_like(ids)
            types[mask] = 0 if tokenized.types is None else tokenized.types
        values["attention_mask"] = mask.astype(np.int64)
        return {name: torch.from_numpy(value) for name, value in values.items()}

    tokenize = preprocess

    def prompt_text(self, prompt: str | None, name: str | None) -> str:
        """Return the prompt to use: `prompt`, or else the one called `name`, or else the model's default.

        Raises:
            ConfigError: there is no prompt of that name.
        """
        if prompt is not None:
            return prompt
        name = name if name is not None else self.default_prompt_name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.prompts:
            raise ConfigError(f"got prompt_name={name!r}; expected one of {sorted(self.prompts)}")
        return self.prompts[name]

    def report_truncation(self, truncated: int, texts: int) -> None:
        """Count truncated texts, and warn the first time or raise an error, as `truncation` says.

        Args:
            truncated: number of texts that were truncated.
            texts: number of texts in all.

        Raises:
            InputError: `truncation` is "error".
        """
        if not truncated:
            return
        message = (
            f"{truncated} of {texts} texts are longer than max_seq_length={self.max_seq_length} tokens and were "
            f"truncated: raise max_seq_length or split the texts"
        )
        if self.truncation == "error":
            raise InputError(message)
        self.truncated_texts += truncated
        if self.truncation == "warn" and not self._warned_truncation:
            self._warned_truncation = True
            warn(message, TruncationWarning)

    # ---- embeddings -----------------------------------------------------------------------------------------------

    def get_sentence_embedding_dimension(self) -> int:
        """Size of an embedding, after `truncate_dim`."""
        return self.dimension(self.truncate_dim)

    get_embedding_dimension = get_sentence_embedding_dimension

    def dimension(self, truncate_dim: int | None) -> int:
        """Size of an embedding that is sliced up to `truncate_dim`.

        Raises:
            ConfigError: `truncate_dim` is not a whole number, or leaves no dimensions.
        """
        size = self.transformer.embedding_dimension
        for module in self:
            if isinstance(module, Pooling):
                size = module.output_dimension
            elif isinstance(module, Dense):
                size = module.linear.out_features
        try:
            dimension = len(range(size)[:truncate_dim])
        except TypeError:
            dimension = 0
        if not dimension:
            raise ConfigError(
                f"got truncate_dim={truncate_dim!r} for {size} dimensions; expected a whole number that leaves some: "
                f"pass one of at least 1, or None for all"
            )
        return dimension

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Set `truncate_dim` for a block of code."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def ensure_eval(self) -> None:
        """Put all modules in evaluation mode; if they are, this takes a tenth of the time of `eval()`."""
        modules: list[nn.Module | None] = [self]
        for module in modules:  # the list grows meanwhile
            if module is not None and module.training:
                self.eval()
                return
            if module is not None and module._modules:
                modules += module._modules.values()

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Do not report truncated texts in a block of code, and leave the model's counts and mode as they were."""
        before = self.truncation, self.truncated_texts, self.training
        self.truncation = "count"
        try:
            yield
        finally:
            self.truncation, self.truncated_texts, training = before
            self.train(training)

    @property
    def similarity_fn_name(self) -> str:
        """Name of the similarity function the embeddings are compared with."""
        return self._similarity.value

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str | SimilarityFunction | None) -> None:
        self._similarity = SimilarityFunction.of(name or SimilarityFunction.COSINE)

    def similarity(self, a: Embeddings, b: Embeddings) -> Tensor:
        """Similarity of every row of `a` to every row of `b`: (n, d) and (m, d) to float32 (n, m)."""
        return self._similarity.matrix(a, b)

    def similarity_pairwise(self, a: Embeddings, b: Embeddings) -> Tensor:
        """Similarity of each row of `a` to the same row of `b`: (n, d) and (n, d) to float32 (n,)."""
        return self._similarity.pairwise(a, b)


def _check_modules(modules: Sequence[nn.Module]) -> None:
    """Check that modules which follow each other fit, as far as that can be seen before a text is embedded.

    Raises:
        ConfigError: they do not fit.
    """
    first = modules[0]
    if not isinstance(first, Transformer):
        return
    found = misfit(modules, first.embedding_dimension)
    if found is not None:
        raise ConfigError(f"got modules of which number {found[0]} does not fit: a {found[1]}: change its size")
    for index, module in enumerate(modules):
        if not isinstance(module, WeightedLayerPooling) or not module.used:
            continue
        if any(isinstance(earlier, Pooling) for earlier in modules[:index]):
            raise ConfigError(
                "got a WeightedLayerPooling after a Pooling, where it has no effect; expected it before: change the "
                "order of the modules"
            )
        if isinstance(first.auto_model, Encoder):
            module.check_layers(len(first.auto_model.layers))
