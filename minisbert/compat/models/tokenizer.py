"""The tokenizer as transformers has it, kept in step with the one that minisbert makes tokens with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...storage.files import write_json
from ...storage.tokenizer import TokenizerSource
from ...text import TextTokenizer


class TokenizerView:
    """A tokenizer of transformers, and what of it was last taken over.

    Calling that one sets padding and truncation in the tokenizer behind it, so ours is another one. What is added to
    it or set is taken over when the model next needs tokens.

    Args:
        tokenizer: a fast tokenizer of transformers, or one that is written in Python.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._length, self._side = tokenizer.model_max_length, tokenizer.truncation_side

    @classmethod
    def of(cls, source: TokenizerSource, config: Mapping[str, Any], ours: TextTokenizer) -> TokenizerView:
        """Load a tokenizer with transformers.

        Args:
            source: the files of ours.
            config: content of config.json.
            ours: the tokenizer of the model.
        """
        import transformers

        with tempfile.TemporaryDirectory() as name:
            for file, content in source.written_files().items():
                (Path(name) / file).write_bytes(content)
            write_json(Path(name) / "config.json", dict(config))
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, local_files_only=True)
        tokenizer.name_or_path = str(config.get("_name_or_path") or "")
        tokenizer.model_max_length, tokenizer.truncation_side = ours.max_length, ours.truncation_side
        return cls(tokenizer)

    def take_over(self, ours: TextTokenizer, within_positions: Callable[[int], int]) -> None:
        """Add the tokens that were added to the view, and set what was set there.

        Args:
            ours: the tokenizer of the model.
            within_positions: cuts a length of texts to what the encoder has positions for.
        """
        known = len(ours)
        if len(self.tokenizer) > known:
            added = self.tokenizer.added_tokens_decoder
            for number in sorted(number for number in added if number >= known):
                token = added[number]
                (ours.tokenizer.add_special_tokens if token.special else ours.tokenizer.add_tokens)([token])
        if self.tokenizer.model_max_length != self._length:
            ours.max_length = within_positions(self.tokenizer.model_max_length)
            self._length = self.tokenizer.model_max_length
        if self.tokenizer.truncation_side != self._side:
            ours.truncation_side = self._side = self.tokenizer.truncation_side

    def set_length(self, length: int) -> None:
        """Set the tokens of the longest text."""
        self.tokenizer.model_max_length = self._length = length

    def copy(self) -> Any:
        """Return a copy of the tokenizer behind the view."""
        backend = self.tokenizer.backend_tokenizer
        return type(backend).from_str(backend.to_str())
