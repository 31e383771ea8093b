"""TSDAE: rebuild a text from the embedding of a damaged copy of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError, first_line
from ..packing import PackedBatch, pad
from ..storage.locate import find_model
from .base import Loss, aligned


class DenoisingAutoEncoderLoss(Loss):
    """Cross entropy of each token of a text, given those before it and the embedding of a damaged copy of the text.

    Columns are (damaged, text), as `DenoisingAutoEncoderDataset` makes them. A decoder, which sees nothing of the
    damaged text but its embedding, predicts the tokens; it is trained too, and not saved with the model (Wang et al.
    2021, https://arxiv.org/abs/2104.06979). It is run by transformers, and padded.

    Args:
        model: the model to train.
        decoder_name_or_path: folder or name of the pretrained decoder; not used if weights are tied.
        tie_encoder_decoder: the decoder is of the model's own kind, and shares all weights that both have.

    Attributes:
        decoder: a causal language model of transformers.
        need_retokenization: True if texts are tokenized again for the decoder.

    Raises:
        ConfigError: the model has no encoder with such a decoder, or none is named.
    """

    max_columns = 2
    forms = ("model", "tokens")

    def __init__(
        self, model: object, decoder_name_or_path: str | None = None, tie_encoder_decoder: bool = True
    ) -> None:
        super().__init__()
        if decoder_name_or_path is None and not tie_encoder_decoder:
            raise ConfigError("got tie_encoder_decoder=False and no decoder; expected one: pass decoder_name_or_path")
        transformer = getattr(model, "transformer", None)
        folder = getattr(transformer, "weights_folder", None)
        if transformer is None or folder is None:
            raise ConfigError(
                f"got the model {type(model).__name__}; {type(self).__name__} expects one with an encoder that was "
                f"loaded from a folder, whose kind and tokenizer the decoder has: pass it first"
            )
        place = Path(folder) if tie_encoder_decoder else find_model(str(decoder_name_or_path))
        self.decoder_name_or_path = str(decoder_name_or_path or getattr(model, "base_model", None) or folder)
        self.decoder, tokenizer = _decoder(place, dtype=next(transformer.parameters()).dtype)
        read = tokenizer if tie_encoder_decoder else _tokenizer(Path(folder))
        self._tokenizers = read, tokenizer
        self.need_retokenization = not tie_encoder_decoder and (
            not isinstance(read, type(tokenizer)) or read.get_vocab() != tokenizer.get_vocab()
        )
        sizes = transformer.embedding_dimension, self.decoder.config.hidden_size
        if sizes[0] != sizes[1]:
            raise ConfigError(f"got a decoder of size {sizes[1]} for embeddings of {sizes[0]}; expected equal sizes")
        self._tied: list[str] = []  # names of the weights that both have
        if tie_encoder_decoder:
            self._tied = self._tie(transformer)
        read_by = self._tokenizers[0 if self.need_retokenization else 1]
        self._padding = int(read_by.pad_token_id or 0)

    def check_model(self, model: nn.Module) -> None:
        """Check that weights which are tied are those of the model; tie those again that it has replaced since."""
        if not self._tied:
            return
        if not {*self.parameters()} & {*model.parameters()}:
            raise ConfigError(
                f"got a {type(self).__name__} made for another model, or a copy of one; expected one for the model "
                f"that is trained: make it again"
            )
        transformer: Any = model.transformer
        parameters, base = transformer.checkpoint_parameters(), self._base()
        if any(base.get_parameter(name) is not parameters.get(name) for name in self._tied):  # the word table resized
            self._tied = self._tie(transformer)

    def forward(self, embeddings: Sequence[Tensor], labels: Tensor | None, tokens: Sequence[PackedBatch]) -> Tensor:
        """Return the loss of the embeddings of damaged texts, (batch, dim), and the packed texts, a scalar."""
        name = type(self).__name__
        if len(embeddings) != 1 or len(tokens) != 1 or len(embeddings[0]) != tokens[0].texts:
            raise InputError(
                f"got {len(embeddings)} columns of embeddings and {len(tokens)} of tokens; {name} expects one of "
                f"damaged texts and one of texts, with equal rows"
            )
        (damaged,) = aligned(embeddings, loss=name)
        size = self.decoder.config.hidden_size
        if damaged.shape[1] != size:
            raise InputError(
                f"got embeddings of {damaged.shape[1]} dimensions for a decoder of {size}; {name} expects equal sizes: "
                f"make the loss for the model that is trained"
            )
        ids = self._targets(tokens[0])  # (batch, length)
        logits = self.decoder(
            input_ids=ids[:, :-1].contiguous(),
            encoder_hidden_states=damaged[:, None],  # one token: (batch, 1, dim)
            encoder_attention_mask=torch.ones(len(ids), 1, dtype=torch.long, device=ids.device),
            use_cache=False,
        )[0]
        padding = int(self._tokenizers[1].pad_token_id)
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].reshape(-1), ignore_index=padding)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the decoder, and whether texts are tokenized again for it."""
        return {
            "decoder_name_or_path": self.decoder_name_or_path,
            "need_retokenization": self.need_retokenization,
        }

    def _targets(self, texts: PackedBatch) -> Tensor:
        """Return the tokens of texts for the decoder, padded, in the order of the rows: (rows, length)."""
        ids, mask = pad(texts.input_ids, texts)
        ids = ids.masked_fill(~mask, self._padding)[texts.restore]
        if not self.need_retokenization:
            return ids
        read, write = self._tokenizers
        words = read.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        written = write(words, padding=True, truncation="longest_first", return_tensors="pt", max_length=None)
        again: Tensor = written["input_ids"].to(ids.device)
        return again

    def _base(self) -> nn.Module:
        """The decoder without its head."""
        base: nn.Module = getattr(self.decoder, self.decoder.base_model_prefix)
        return base

    def _tie(self, transformer: Any) -> list[str]:
        """Put the encoder's parameters in place of the decoder's of the same names, and return these."""
        decoder, vocabulary = self.decoder, transformer.encoder.vocabulary
        parameters: Mapping[str, nn.Parameter] = transformer.checkpoint_parameters()
        if vocabulary is not None and vocabulary != decoder.get_input_embeddings().num_embeddings:
            decoder.resize_token_embeddings(vocabulary)
        base = self._base()
        shared = [name for name, _ in base.named_parameters() if name in parameters]
        if not shared:
            raise ConfigError(
                f"got no weight that encoder and {type(decoder).__name__} both have; expected a decoder of the same "
                f"kind: pass tie_encoder_decoder=False"
            )
        for name in shared:
            owner, _, kind = name.rpartition(".")
            setattr(base.get_submodule(owner), kind, parameters[name])
        decoder.tie_weights()  # its output layer to the embeddings that it has now
        return shared


def _tokenizer(folder: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@contextmanager
def _quietly(logging: Any) -> Iterator[None]:
    """Let transformers log errors only, and show no progress bar, for a block of code."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _decoder(folder: Path, *, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load a causal language model that attends to an encoder, and its tokenizer.

    Raises:
        ConfigError: transformers has none of this kind, or cannot read it.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        config.is_decoder, config.add_cross_attention = True, True
        with _quietly(transformers.utils.logging):  # a table of the weights that a decoder draws anew
            decoder = transformers.AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True
            )
        tokenizer = _tokenizer(folder)
    except Exception as error:  # transformers raises errors of any type
        raise ConfigError(
            f"transformers cannot load a decoder from {folder} ({first_line(error)}); expected a model with a head for "
            f"language: pass decoder_name_or_path"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        decoder.config.pad_token_id = decoder.config.eos_token_id
    return decoder, tokenizer
