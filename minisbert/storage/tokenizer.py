"""The tokenizer of a model folder: read as transformers 5.23 builds it, and written so that all readers get its ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, warn
from .dialects import unusable
from .files import is_file, open_file, read_json_object
from .tokenizer_classes import GENERIC, REFUSED, is_known, needs_code, tokenizer_class
from .tokenizer_foreign import PythonTokenizer, load_with_transformers
from .tokenizer_recipes import RECIPES, applied_ends, build, read_token_settings, steps

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_JSON, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_SPECIALS, _ADDED = "special_tokens_map.json", "added_tokens.json"
# Files that a tokenizer can be made from, where there is no tokenizer.json.
VOCABULARIES = (
    *(
        "vocab.txt",
        "vocab.json",
        "sentencepiece.bpe.model",
        "spiece.model",
        "spm.model",
        "tokenizer.model",
        "bpe.codes",
    ),
    "sentencepiece.model",
)
TOKENIZER_FILES = (_JSON, _CONFIG, _SPECIALS, _ADDED, "merges.txt", "chat_template.jinja", *VOCABULARIES)
_MODEL_ATTRIBUTES = (
    *("unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "dropout", "end_of_word_suffix"),
    *("fuse_unk", "byte_fallback", "ignore_merges"),
)
_NO_LETTER = "\U0010fffd"  # in no vocabulary
# The name of the generic class that older versions of transformers know, too.
_OLD_GENERIC = "PreTrainedTokenizerFast"


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer and the files it was read from.

    Attributes:
        tokenizer: ready to encode.
        config: tokenizer_config.json, or {}, with entries replaced by those of the model's settings.
        files: name to content of every tokenizer file of the folder.
        kind: its class in transformers, a key of the tables in tokenizer_classes.py.
        truncation_side: the end at which long texts are cut, "left" or "right".
        token_types: True if the encoder is given the types of tokens.
        kept: True if tokenizer.json was kept although its class cannot hold such a vocabulary.
        drops_lower_case: True if texts are lower-cased by a step that transformers 5 does not read back.
        in_file: the state of the tokenizer that tokenizer.json alone gives, or None if there is no such file.
        loaded: the state of the tokenizer as it was built.
    """

    tokenizer: Tokenizer | PythonTokenizer
    config: dict[str, Any]
    files: dict[str, bytes]
    kind: str
    truncation_side: str
    token_types: bool
    kept: bool
    drops_lower_case: bool
    in_file: tuple[Any, ...] | None
    loaded: tuple[Any, ...] | None

    @property
    def max_length(self) -> int | None:
        """Tokens of the longest text that the tokenizer's configuration allows."""
        return longest_text(self.config)

    def written_files(self) -> dict[str, bytes]:
        """Return the files to save.

        They are unchanged but for what older versions of transformers cannot read, and for a tokenizer.json that would
        give other tokens than these to whoever reads no other file.
        """
        files, config = dict(self.files), dict(self.config)
        if config.get("tokenizer_class") == GENERIC or self.kept:
            config["tokenizer_class"] = _OLD_GENERIC
        if isinstance(config.get("extra_special_tokens"), list):  # the form of version 5; older ones expect an object
            extra = config.pop("extra_special_tokens")
            config["additional_special_tokens"] = extra or config.get("additional_special_tokens") or []
        if config != (json.loads(files[_CONFIG]) if _CONFIG in files else {}):
            files[_CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
        if not isinstance(self.tokenizer, PythonTokenizer) and _state(self.tokenizer) != self.in_file:
            files[_JSON] = self.tokenizer.to_str(pretty=True).encode("utf-8")
            if self.in_file not in (None, self.loaded):
                warn(
                    f"a new tokenizer.json is saved: the one that was loaded makes other tokens than {self.kind} with "
                    f"tokenizer_config.json, which are the ones that were used"
                )
        return files


def read_tokenizer(
    folder: Path, *, config: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> TokenizerSource:
    """Read the tokenizer of a model, with the token ids of transformers 5.23.

    Args:
        folder: of the model.
        config: content of its config.json.
        changes: entries that replace those of tokenizer_config.json.

    Raises:
        ModelError: there is no tokenizer, it cannot be read, or it is of a class that makes no tokens of plain texts.
    """
    files = {name: _content(folder / name) for name in TOKENIZER_FILES if is_file(folder / name)}
    own = {**read_json_object(folder / _CONFIG, optional=True), **(changes or {})}
    kind = tokenizer_class(own, config, files.get(_JSON, b""))
    if kind in REFUSED:
        raise ModelError(f"{folder} has a {kind}; expected one that takes plain texts: choose another model")
    if needs_code(own) and not is_known(own, config):
        raise ModelError(
            f"{folder / _CONFIG} names a tokenizer in the folder's own code; expected a class of transformers: "
            f"minisbert runs no code from a model folder, save the model with another tokenizer class"
        )
    if kind == GENERIC and _JSON not in files:  # which reads no vocab.txt
        kind = tokenizer_class({}, config)
    try:
        return _read(folder, files, own, changes or {}, kind)
    except (ModelError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the Rust library raises plain Exception or panics, and transformers many types
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the tokenizer of {folder} cannot be read as {kind} ({reason}); expected tokenizer.json, or files that "
            f"transformers can convert: copy them again, or save the tokenizer once with save_pretrained"
        ) from None


def tokenizer_kind(own: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the class of a tokenizer in transformers 5.23.

    Args:
        own: content of tokenizer_config.json, or {}.
        config: content of config.json.
    """
    return tokenizer_class(own, config)


def longest_text(own: Mapping[str, Any]) -> int | None:
    """Return the most tokens that tokenizer_config.json allows, or None if it sets no limit."""
    value = own.get("model_max_length")
    return int(value) if isinstance(value, (int, float)) and 0 < value < 10**9 else None


def put_in_lower_case(tokenizer: Tokenizer | PythonTokenizer) -> None:
    """Make `tokenizer` lower-case texts before anything else, as version 6 does, unless it does so already."""
    from tokenizers.normalizers import Lowercase, Sequence

    if isinstance(tokenizer, PythonTokenizer):
        tokenizer.lower_case = True
    elif "Lowercase" not in _step_names(tokenizer):
        present = tokenizer.normalizer
        tokenizer.normalizer = Sequence([Lowercase(), *([present] if present else [])])


def _content(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); expected a file: copy it again") from None


def _read(
    folder: Path, files: dict[str, bytes], own: dict[str, Any], changes: Mapping[str, Any], kind: str
) -> TokenizerSource:
    """Build the tokenizer as its class does."""
    content = files.get(_JSON, b"")
    base = _base(folder, files, kind)
    truncation, padding = (base.truncation or {}, base.padding or {}) if base else ({}, {})
    in_file, first_steps = None, [""]
    if base is not None:
        base.no_truncation()
        base.no_padding()
        in_file, first_steps = _state(base) if content else None, _step_names(base)[:1]
    kept = base is not None and kind in RECIPES and RECIPES[kind].model not in (None, _model(base))
    if base is None or kind not in RECIPES:
        foreign = load_with_transformers(folder, kind, changes)
        tokenizer, types = foreign.tokenizer, foreign.token_types
        files = {**files, **{name: _content(folder / name) for name in foreign.files}}
        if not content and not isinstance(tokenizer, PythonTokenizer):
            own = {**foreign.settings, **own}
        kept = base is not None and not isinstance(tokenizer, PythonTokenizer) and _model(tokenizer) != _model(base)
    if base is not None and (kept or kind in RECIPES):
        if kept:
            warn(
                f"{folder / _CONFIG} asks for {kind}, which has no {_model(base)} vocabulary as in tokenizer.json: its "
                f"tokens are used as they are; set tokenizer_class to {_OLD_GENERIC} there, as a saved copy has it"
            )
        used, settings = (GENERIC if kept else kind), dict(own)
        if used == GENERIC and padding:
            settings.setdefault("pad_token", padding["pad_token"])
        others = {name: json.loads(files[name]) for name in (_SPECIALS, _ADDED) if name in files}
        tokens = read_token_settings(settings, others, base.get_added_tokens_decoder() if content else None)
        tokenizer, types = build(used, tokens, base, content), RECIPES[used].token_types
    # Of the truncation and padding saved in tokenizer.json, only the side of the truncation is used.
    side = own.get("truncation_side") or str(truncation.get("direction", "right")).lower()
    if side not in ("left", "right"):
        raise unusable(folder / _CONFIG, "truncation_side", side, "left or right")
    inputs = own.get("model_input_names")
    # Version 6 of the reference saves texts in lower case as this step; most classes of transformers 5 drop it.
    lost = first_steps == ["Lowercase"] and kind != "DebertaV2Tokenizer" and "Lowercase" not in _step_names(tokenizer)
    if lost:
        put_in_lower_case(tokenizer)
    return TokenizerSource(
        tokenizer=tokenizer,
        config=own,
        files=files,
        kind=kind,
        truncation_side=side,
        token_types="token_type_ids" in inputs if isinstance(inputs, list) else types,
        kept=kept,
        drops_lower_case=lost,
        in_file=in_file,
        loaded=None if isinstance(tokenizer, PythonTokenizer) else _state(tokenizer),
    )


def _base(folder: Path, files: Mapping[str, bytes], kind: str) -> Tokenizer | None:
    """Return the tokenizer of tokenizer.json, or one with the vocabulary that a native class reads; None without."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE, WordPiece

    model = RECIPES[kind].model if kind in RECIPES else None
    if _JSON in files:
        return Tokenizer.from_buffer(files[_JSON])
    if model == "WordPiece" and "vocab.txt" in files:
        return Tokenizer(WordPiece(WordPiece.read_file(str(folder / "vocab.txt"))))
    if model == "BPE" and {"vocab.json", "merges.txt"} <= set(files):
        return Tokenizer(BPE(*BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))))
    if model is None or any(name in files for name in VOCABULARIES):
        return None
    raise ModelError(f"{folder} has no tokenizer; expected tokenizer.json: copy the whole model again")


def _step_names(tokenizer: Tokenizer | PythonTokenizer) -> list[str]:
    return [] if isinstance(tokenizer, PythonTokenizer) else [step["type"] for step in steps(tokenizer.normalizer)]


def _model(tokenizer: Tokenizer) -> str:
    """Return the name of the algorithm."""
    return type(tokenizer.model).__name__


def _state(tokenizer: Tokenizer) -> tuple[Any, ...]:
    """Return what decides on the tokens of a text, beside the vocabulary."""
    model: Any = tokenizer.model
    parts: Any = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    return (
        _model(tokenizer),
        _unknown(model) if _model(tokenizer) == "Unigram" else None,
        *(getattr(model, name, None) or None for name in _MODEL_ATTRIBUTES),
        *(part and part.__getstate__() for part in parts),
        applied_ends(tokenizer),
        repr(sorted(tokenizer.get_added_tokens_decoder().items())),
    )


def _unknown(model: Any) -> list[int] | None:
    """Return what a Unigram model makes of a character that it does not know, or None if it fails then."""
    try:
        return [token.id for token in model.tokenize(_NO_LETTER)]
    except Exception:
        return None
