"""The reference's padded feature dictionaries, to our packed `Features` and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError, InputTypeError, shown
from ...modules.features import Features
from ...packing import PackedBatch, pad, runs_of

_IDS, _MASK, _TYPES, _OFFSETS = "input_ids", "attention_mask", "token_type_ids", "offsets"


@dataclass(frozen=True)
class Padding:
    """The places that the tokens of a packed batch have in a padded one.

    Attributes:
        batch: the tokens, without padding.
        rows: int64, (tokens,): the row of each token in the padded batch.
        columns: int64, (tokens,): its column.
        width: columns of the padded batch.
    """

    batch: PackedBatch
    rows: Tensor
    columns: Tensor
    width: int

    @classmethod
    def of(cls, features: Mapping[str, Any], device: torch.device) -> Padding:
        """Read padded features, and pack their tokens on `device`.

        Args:
            features: "input_ids", (texts, length); "attention_mask", by default all ones, and "token_type_ids", by
                default all zeros, of the same shape; "prompt_length", a number or a tensor of equal numbers.
            device: of the model.

        Raises:
            InputTypeError: there are no such tensors.
            InputError: they do not fit each other, or a text has no tokens or padding between its tokens.
        """
        check_features(features)
        ids, mask, types = _tensors(features, device)
        texts, width = ids.shape
        lengths = mask.sum(dim=1)
        known = lengths.cpu().numpy()  # runs are known on the host
        order = np.argsort(known, kind="stable")
        if not texts or not known[order[0]]:
            raise InputError(
                f"got {shown(_MASK)} with a text of no tokens; expected at least one in each: drop the row"
            )
        places = torch.from_numpy(order).to(device)
        kept = mask[places]
        text_index, columns = kept.nonzero(as_tuple=True)  # row by row, which is the packed order
        lengths = lengths[places]
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        positions = torch.arange(len(columns), device=device) - offsets[:-1][text_index]
        if not torch.equal(columns - positions, columns[offsets[:-1]][text_index]):
            raise InputError(f"got {shown(_MASK)} with zeros between ones; expected padding at the ends of texts alone")
        packed_types = None if types is None else types[places][kept]
        batch = PackedBatch(
            input_ids=ids[places][kept],
            positions=positions,
            text_index=text_index,
            lengths=lengths,
            offsets=offsets.int(),
            runs=tuple(runs_of(known[order])),
            restore=torch.argsort(places),
            prompt_length=_prompt_length(features.get("prompt_length")),
            token_types=packed_types if packed_types is not None and bool(packed_types.any()) else None,
        )
        return cls(batch, places[text_index], columns, width)

    @classmethod
    def around(cls, batch: PackedBatch) -> Padding:
        """Pad a batch on the right, its texts in packed order."""
        return cls(batch, batch.text_index, batch.positions, batch.max_length)

    def pad(self, values: Tensor) -> Tensor:
        """Put (tokens[, dim]) into (texts, width[, dim]), with zeros as padding."""
        padded = values.new_zeros(self.batch.texts, self.width, *values.shape[1:])
        return padded.index_put((self.rows, self.columns), values)

    def unpad(self, padded: Tensor) -> Tensor:
        """Take the tokens out of (texts, width[, dim]): (tokens[, dim])."""
        return padded[self.rows, self.columns]

    def with_columns(self) -> PackedBatch:
        """The batch with columns as positions, as an encoder counts them that adds a table of positions.

        They differ from ours for padding on the left.
        """
        return replace(self.batch, positions=self.columns)

    @property
    def on_left(self) -> bool:
        """True if there is padding before a text."""
        return not torch.equal(self.columns, self.batch.positions)


def results(features: Features, padding: Padding, *, in_order: bool = True) -> dict[str, Tensor | list[Tensor]]:
    """Return what modules made, by the names of the reference.

    Args:
        features: packed.
        padding: places of their tokens.
        in_order: rows are wanted in the order of the caller, not in packed order.

    Returns:
        "token_embeddings", (texts, width, dim), "all_layer_embeddings", a list of these, and "sentence_embedding",
        (texts, dim), as far as they are known.
    """
    found: dict[str, Tensor | list[Tensor]] = {}
    if features.token_embeddings is not None:
        found["token_embeddings"] = padding.pad(features.token_embeddings)
    if features.layer_embeddings:
        found["all_layer_embeddings"] = [padding.pad(layer) for layer in features.layer_embeddings]
    if features.sentence_embedding is not None:
        sentences = features.sentence_embedding
        found["sentence_embedding"] = sentences[features.batch.restore] if in_order else sentences
    return found


def take_results(features: Features, given: Mapping[str, Any], padding: Padding, *, in_order: bool = True) -> Features:
    """Set what a dictionary has of `results`, and return `features`."""
    tokens, layers, sentences = map(given.get, ("token_embeddings", "all_layer_embeddings", "sentence_embedding"))
    if tokens is not None:
        features.token_embeddings = padding.unpad(tokens)
    if layers is not None:
        features.layer_embeddings = [padding.unpad(layer) for layer in layers]
    if sentences is not None:
        features.sentence_embedding = sentences[padding.batch.restore.argsort()] if in_order else sentences
    return features


def check_features(features: Any) -> None:
    """Check that something is a dictionary of features.

    Raises:
        InputTypeError: it is none.
    """
    if not isinstance(features, Mapping):
        raise InputTypeError(f"got {shown(features)} for features; expected a dictionary: use tokenize(), or encode()")


def padded_features(batch: PackedBatch, *, padding: int) -> dict[str, Any]:
    """Return texts as the features of the reference's models, in the order of the rows.

    Args:
        batch: the texts.
        padding: id of the padding token.

    Returns:
        input_ids, attention_mask and token_type_ids, int64, (texts, longest); and prompt_length where some leading
        tokens are left out of pooling.
    """
    ids, mask = pad(batch.input_ids, batch)
    types = ids.new_zeros(ids.shape) if batch.token_types is None else pad(batch.token_types, batch)[0]
    features: dict[str, Any] = {
        _IDS: ids.masked_fill(~mask, padding)[batch.restore],
        _MASK: mask.to(torch.int64)[batch.restore],
        _TYPES: types[batch.restore],
    }
    if batch.prompt_length:
        features["prompt_length"] = batch.prompt_length
    return features


def flat_batch(features: Mapping[str, Any], device: torch.device) -> PackedBatch:
    """Read the features of a static model: the tokens of texts in a row, and where each text begins.

    Args:
        features: "input_ids", (tokens,), and "offsets", (texts,).
        device: of the model.

    Returns:
        The texts, in the order of the caller.

    Raises:
        InputTypeError: there are no such tensors.
        InputError: there are no texts, or the offsets do not rise from 0 to the number of tokens.
    """
    check_features(features)
    for name in (_IDS, _OFFSETS):
        value = features.get(name)
        if not isinstance(value, Tensor) or value.ndim != 1 or value.is_floating_point():
            got = str(tuple(value.shape)) if isinstance(value, Tensor) else shown(value)
            raise InputTypeError(
                f"got {name} {got} for a static model; expected integers in one dimension, and {_OFFSETS} beside "
                f"{_IDS}: use tokenize()"
            )
    ids, starts = (features[name].to(device, torch.long) for name in (_IDS, _OFFSETS))
    lengths = torch.cat([starts, starts.new_tensor([len(ids)])]).diff()
    if not len(starts) or starts[0] != 0 or bool((lengths < 0).any()):
        raise InputError(
            f"got {_OFFSETS} {shown(starts.tolist())} for {len(ids)} tokens; expected where each text begins, from 0 "
            f"on: use tokenize()"
        )
    index = torch.arange(len(starts), device=device)
    text_index = index.repeat_interleave(lengths)
    return PackedBatch(
        input_ids=ids,
        positions=torch.arange(len(ids), device=device) - starts[text_index],
        text_index=text_index,
        lengths=lengths,
        offsets=torch.cat([starts, starts.new_tensor([len(ids)])]).int(),
        runs=tuple(runs_of(lengths.cpu().numpy())),
        restore=index,
    )


def flat_features(batch: PackedBatch) -> dict[str, Any]:
    """Return texts as the features of static models, in the order of the rows; see `flat_batch`."""
    lengths = batch.lengths[batch.restore]
    offsets = lengths.cumsum(0) - lengths
    moved = (batch.offsets[:-1].long()[batch.restore] - offsets).repeat_interleave(lengths)
    return {_IDS: batch.input_ids[moved + torch.arange(batch.tokens, device=moved.device)], _OFFSETS: offsets}


def run_on_dictionary(
    module: nn.Module, features: Features, padding: Padding | None = None, given: dict[str, Any] | None = None
) -> Features:
    """Run a module that is written for dictionaries on packed features.

    Args:
        module: takes and returns a dictionary of features.
        features: packed.
        padding: places of their tokens in the padded batch of the caller, whose order the module then sees; without
            one, the module sees the texts in packed order; those of a static model are always in the caller's.
        given: the dictionary that the caller gave; it is changed to what the module returns.

    Raises:
        InputTypeError: the module returns something else.
    """
    batch, in_order = features.batch, padding is not None
    padding = padding or Padding.around(batch)
    if given is None and features.token_embeddings is None:  # of a static model
        given, in_order = flat_features(batch), True
    elif given is None:
        given = {_IDS: padding.pad(batch.input_ids), _MASK: padding.pad(torch.ones_like(batch.input_ids))}
        if batch.token_types is not None:
            given[_TYPES] = padding.pad(batch.token_types)
        if batch.prompt_length:
            given["prompt_length"] = batch.prompt_length
    given.update(results(features, padding, in_order=in_order))
    made = module(given)
    if not isinstance(made, Mapping):
        raise InputTypeError(
            f"got {type(made).__name__} from {type(module).__name__}; expected the dictionary of features, with what "
            f"the module makes: return it from forward"
        )
    given.update(made)
    return take_results(features, made, padding, in_order=in_order)


def _tensors(features: Mapping[str, Any], device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    ids = features.get(_IDS)
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        got = f"{_IDS} {tuple(ids.shape)} of {ids.dtype}" if isinstance(ids, Tensor) else f"{_IDS}={shown(ids)}"
        if _IDS not in features:
            got = f"the keys {', '.join(map(str, features)) or '(none)'} and no {_IDS}"
        raise InputTypeError(f"got features with {got}; expected a tensor of integers, (texts, length): use tokenize()")
    found = [ids.to(device, torch.long)]
    for name in (_MASK, _TYPES):
        tensor = features.get(name)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or tensor.shape != ids.shape:
            got = str(tuple(tensor.shape)) if isinstance(tensor, Tensor) else shown(tensor)
            raise InputError(f"got {name} {got}; expected a tensor of the shape of {_IDS}, {tuple(ids.shape)}")
    mask = features.get(_MASK)
    mask = torch.ones_like(found[0], dtype=torch.bool) if mask is None else mask.to(device) != 0
    types = features.get(_TYPES)
    return found[0], mask, None if types is None else types.to(device, torch.long)


def _prompt_length(value: Any) -> int:
    if isinstance(value, Tensor):  # the collator of the reference repeats it for each text
        return int(value.reshape(-1)[0]) if value.numel() else 0
    return int(value or 0)
