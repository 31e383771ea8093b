"""Options of `minisbert train` for a LoRA adapter."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..sentence_transformer import SentenceTransformer


def add_adapter_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("LoRA: train an adapter, with the weights of the model frozen")
    group.add_argument("--lora-r", type=int, metavar="N", help="rank of the adapter, such as 8; needed for the others")
    group.add_argument(
        "--lora-alpha", type=float, metavar="N", help="the change is multiplied by N / rank (default: 8)"
    )
    group.add_argument(
        "--lora-dropout", type=float, metavar="N", help="dropout of the adapter's input in training (default: 0)"
    )
    group.add_argument(
        "--lora-target-modules",
        nargs="+",
        metavar="NAME",
        help="linear layers by their names in the checkpoint, or one regular expression for whole names, or all-linear "
        "(default: queries and values)",
    )
    group.add_argument("--lora-rslora", action="store_true", help="multiply by alpha / sqrt(rank)")
    group.add_argument(
        "--lora-merge", action="store_true", help="save the whole model with the adapter merged, not the adapter alone"
    )


def check_adapter_options(options: argparse.Namespace) -> None:
    """Check the options before a model is loaded.

    Raises:
        ConfigError: an option is given without a rank.
        InputError: the adapter cannot be saved in the output folder.
    """
    from ..storage.adapters import check_no_base

    names = ("lora_alpha", "lora_dropout", "lora_target_modules", "lora_rslora", "lora_merge")
    given = [name for name in names if getattr(options, name) not in (None, False)]
    if options.lora_r is None:
        if given:
            raise ConfigError(f"got --{given[0].replace('_', '-')} without a rank; expected --lora-r too, such as 8")
    elif not options.lora_merge:
        output: Path = options.output
        check_no_base(output)


def put_adapter(model: SentenceTransformer, options: argparse.Namespace) -> None:
    """Put the adapter that the options ask for on a model, if they do; it is drawn from the seed of the run."""
    if options.lora_r is None:
        return
    import torch

    from ..modules.lora import LoraConfig

    targets = options.lora_target_modules
    if targets is not None and len(targets) == 1 and not re.fullmatch(r"[\w.]+", targets[0]):
        targets = targets[0]
    given = {"lora_alpha": options.lora_alpha, "lora_dropout": options.lora_dropout, "target_modules": targets}
    config = LoraConfig(
        r=options.lora_r,
        use_rslora=options.lora_rslora,
        **{name: value for name, value in given.items() if value is not None},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model.add_adapter(config)
