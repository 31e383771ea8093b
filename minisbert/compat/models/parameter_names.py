"""The reference's names of the modules, parameters and tensors in an encoder, in any model or loss that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ...modules.encoder import Encoder
from ...modules.foreign import ForeignEncoder
from .auto_model import leaves

_OURS, _THEIRS = "auto_model.", "model."
# Tensors that the reference may have, and no embedding depends on.
_WITHOUT_USE = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")


class ParameterNames(nn.Module):
    """A module with an encoder, `auto_model`, which it shows under `model` with the tree that transformers gives it."""

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield modules by their names: those with weights by the reference's, and then what else our encoder has."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        start = f"{prefix}." if prefix else ""
        shown: Any = self.auto_model
        yield from shown.named_modules(memo, f"{start}{_THEIRS}"[:-1], remove_duplicate)
        for name, module in self._modules.items():
            if module is not None and (remove_duplicate or name != _OURS[:-1]):
                yield from module.named_modules(memo, f"{start}{name}", remove_duplicate)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return the tensors by the reference's names; see `torch.nn.Module.state_dict`."""
        found = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        names = self._names()
        for name in [name for name in found if name.startswith(prefix + _OURS)]:
            found[prefix + _THEIRS + _renamed(name.removeprefix(prefix + _OURS), names)] = found.pop(name)
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Let tensors have the reference's names in version 6, in versions 2 to 5, or ours."""
        encoder: Any = self._modules["auto_model"]
        names, own = {theirs: ours for ours, theirs in self._names().items()}, {*encoder.state_dict()}
        for name in list(state_dict):
            plain = name.removeprefix(prefix)
            if not name.startswith(prefix) or plain.removeprefix(_OURS) in own:
                continue
            for start in (_THEIRS, _OURS):
                if plain.startswith(start):
                    tensor, plain = state_dict.pop(name), plain.removeprefix(start)
                    if not plain.startswith(_WITHOUT_USE):
                        state_dict[prefix + _OURS + _renamed(plain, names)] = tensor
                    break
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _names(self) -> dict[str, str]:
        """Names of modules with weights in our encoder, to those they have in transformers."""
        encoder: Any = self._modules["auto_model"]
        if isinstance(encoder, ForeignEncoder):
            return {"model": ""}
        config: Mapping[str, Any] = self.config  # type: ignore[assignment]  # of the class that this is mixed into
        return (
            {ours: theirs for ours, (theirs, _) in leaves(encoder, config).items()}
            if isinstance(encoder, Encoder)
            else {}
        )


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Replace the longest part that a name begins with and that has another name."""
    parts = name.split(".")
    for end in range(len(parts) - 1, -1, -1):
        if (other := names.get(".".join(parts[:end]))) is not None:
            return ".".join([*filter(None, [other]), *parts[end:]])
    return name
