"""Any other Hugging Face encoder, behind the face of the native one: packed outside, padded inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..packing import PackedBatch, pad, unpad
from ..storage.dialects import is_count
from ..storage.weights import weight_files

# Models of an encoder and a decoder, and the class that loads their encoder alone.
_ENCODERS_OF_PAIRS: Mapping[str, str] = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
}

_LARGEST = 10**9  # of any whole number in a configuration
_MOST_PARTS = 1000  # layers, blocks and the like
_PARTS = ("layer", "block", "group", "depth", "expert")
_UNSAVED = 20_000_000  # numbers that a model may have beside its weights, such as a pooler's and tables of positions


class ForeignEncoder(nn.Module):
    """Wraps a model of `transformers` that maps input ids to token embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._compiled: Callable[..., Any] | None = None

    @classmethod
    def load(
        cls, folder: Path, *, changes: Mapping[str, Any] | None = None, dtype: str | None = None
    ) -> ForeignEncoder:
        """Load the model in `folder`, without running code that comes with it.

        Args:
            folder: holds config.json and weights.
            changes: put over the content of config.json.
            dtype: what the weights are loaded as; by default what they are saved in.

        Raises:
            ModelError: transformers does not know or cannot read the model.
        """
        import transformers

        local = {"trust_remote_code": False, "local_files_only": True}
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **local, **(changes or {}))
            loader = getattr(transformers, _ENCODERS_OF_PAIRS.get(config.model_type, "AutoModel"))
            _check_size(folder, loader, config)
            model = loader.from_pretrained(folder, config=config, dtype=dtype or "auto", **local)
        except ModelError:
            raise
        except Exception as error:  # what transformers raises where a configuration makes no sense is of any kind
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"transformers cannot load the encoder in {folder} ({reason})") from error
        return cls(model)

    @property
    def hidden_size(self) -> int:
        """Size of the token embeddings."""
        return int(self._config.hidden_size)

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens, or None where the configuration does not say it."""
        value = getattr(self._config, "vocab_size", None)
        return value if is_count(value) else None

    @property
    def max_tokens(self) -> int | None:
        """The longest text the model has positions for, or None where it has no such limit."""
        value = getattr(self._config, "max_position_embeddings", None)
        return int(value) if isinstance(value, int) and value > 0 else None

    @property
    def token_types(self) -> bool:
        """Whether the two texts of a pair are told apart by the types of their tokens."""
        known = "token_type_ids" in inspect.signature(self.model.forward).parameters
        return known and getattr(self._config, "type_vocab_size", 2) > 1

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embed every token of `batch`: (tokens, dim)."""
        input_ids, mask = pad(batch.input_ids, batch)
        types = {} if batch.token_types is None else {"token_type_ids": pad(batch.token_types, batch)[0]}
        output: Any = (self._compiled or self.model)(input_ids=input_ids, attention_mask=mask.to(torch.long), **types)
        return unpad(output[0], batch)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run the model through torch.compile for a block of code."""
        self._compiled = torch.compile(self.model, dynamic=True)
        try:
            yield
        finally:
            self._compiled = None

    def save(self, folder: Path) -> None:
        """Write the weights and config.json."""
        self._model.save_pretrained(folder)

    @property
    def _model(self) -> Any:
        return self.model

    @property
    def _config(self) -> Any:
        return self.model.config


def _check_size(folder: Path, loader: Any, config: Any) -> None:
    """Refuse a configuration that describes more than the weights hold, before it is built.

    Raises:
        ModelError: it does.
    """
    for name, number in _numbers(config.to_dict()):
        most = _MOST_PARTS if any(part in name for part in _PARTS) else _LARGEST
        if abs(number) > most:
            raise ModelError(f"config.json in {folder}: got {number} for {name}; expected at most {most}")
    with torch.device("meta"):
        make = getattr(loader, "from_config", loader)
        model: nn.Module = make(config)
    numbers = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    size = sum(path.stat().st_size for path in weight_files(folder))
    if numbers > size + _UNSAVED:  # a number takes a byte at least
        raise ModelError(
            f"config.json in {folder} describes {numbers:,} numbers, and the weights have {size:,} bytes; expected "
            f"those that belong to it: copy the whole model again"
        )


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number of a configuration, with the key it stands under."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(one, str(key))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _numbers(one, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value
