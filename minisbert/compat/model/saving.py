"""Save a model, with what its users say about it on the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ...errors import ConfigError, warn
from ...sentence_transformer import SentenceTransformer as OurSentenceTransformer
from ..models.module import warn_of_pickles
from .card import SentenceTransformerModelCardData

_PLACEHOLDER = "sentence_transformers_model_id"  # the name that the example on a card loads before there is one


class SavingMethods(OurSentenceTransformer):
    """`save` and `save_pretrained`.

    Attributes:
        model_card_data: entries for the card.
    """

    model_card_data: SentenceTransformerModelCardData

    def save_pretrained(
        self,
        path: str | Path | None,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the model; see `minisbert.SentenceTransformer.save_pretrained`.

        Args:
            path: the folder to write; None to write nothing.
            model_name: the name on the Hub that the card shows, unless `model_card_data` has one.
            create_model_card: write README.md.
            train_datasets: makes no difference, as in the reference: see `SentenceTransformerModelCardData`.
            safe_serialization: makes no difference: weights are safetensors.
        """
        if path is None:
            return
        if not safe_serialization:
            warn_of_pickles()
        if model_name and not self.model_card_data.model_id and not Path(model_name).exists():
            self.model_card_data.model_id = model_name
        super().save_pretrained(path, model_name=None, create_model_card=create_model_card)

    save = save_pretrained

    def kind_of(self, module: nn.Module) -> str:
        """Name a module of minisbert, or the class of the caller's as the reference does.

        Raises:
            ConfigError: such a class has no `save`.
        """
        if not _own(module):
            return super().kind_of(module)
        kind = type(module)
        if not callable(getattr(module, "save", None)):
            raise ConfigError(
                f"got a module {kind.__name__} without save(); expected one that writes itself into a folder: derive "
                f"it from sentence_transformers.models.Module"
            )
        return f"{kind.__module__}.{kind.__qualname__}"

    def write_module(self, module: nn.Module, folder: Path) -> None:
        """Write a module's configuration and weights; one of the caller's writes itself."""
        if not _own(module):
            super().write_module(module, folder)
            return
        own: Any = module
        own.save(str(folder))
        warn(
            f"{type(module).__name__} is a module of your own: sentence-transformers loads the model with "
            f"trust_remote_code=True, minisbert does not; build it again with modules=[...]"
        )

    def _model_card(self, model_name: str | None) -> str:
        data = self.model_card_data
        if self._card and self.training_record is None and "generated_from_trainer" not in data.tags:
            return self._card.replace(_PLACEHOLDER, data.model_id) if data.model_id else self._card
        try:
            from ...card.composing import compose
            from ...card.rendering import render

            return render(data.of(compose(self, self.training_record, name=data.model_id)))
        except Exception as error:  # whatever it is, trained weights are worth more than their card
            warn(f"the model card could not be made: {error!r}; README.md is left empty")
            return ""


def _own(module: nn.Module) -> bool:
    """Return True for a class of the caller's."""
    return type(module).__module__.partition(".")[0] != __name__.partition(".")[0]
