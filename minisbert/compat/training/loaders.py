"""Batches as the reference's Trainer makes them, for code that asks for them; training itself does not use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, RandomSampler

from ...errors import ConfigError, warn
from ...model import EmbeddingModel
from ..samplers import (
    BatchSamplers,
    DefaultBatchSampler,
    GroupByLabelBatchSampler,
    MultiDatasetBatchSamplers,
    NoDuplicatesBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
)
from .arguments import BaseTrainingArguments
from .data import is_stream, named

# Methods of the reference's Trainer that its own loop calls, and that of minisbert does not.
_NOT_CALLED = (
    "training_step",
    "prediction_step",
    "evaluation_loop",
    "collect_features",
    "get_train_dataloader",
    "get_eval_dataloader",
    "get_batch_sampler",
    "get_multi_dataset_batch_sampler",
    "create_optimizer",
    "create_scheduler",
    "create_optimizer_and_scheduler",
    "get_optimizer_cls_and_kwargs",
)
# Methods that the user may call as well.
_NOT_CALLED_IN_TRAINING = ("evaluate", "save_model")


class TrainerLoaders:
    """The methods of a trainer that make batches, and the loss of one.

    Attributes:
        args: the arguments.
        data_collator: makes a batch of rows.
        train_dataset: the training data.
        eval_dataset: the evaluation data.
        loss: of the trainer, or one for each data set by name.
    """

    args: BaseTrainingArguments
    data_collator: Any
    train_dataset: Any
    eval_dataset: Any
    loss: Any

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of the training batches."""
        return self._loader(self.train_dataset, self.args.train_batch_size)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return a loader of evaluation batches; of a data set, or of one of the trainer's by name."""
        if isinstance(eval_dataset, str):
            eval_dataset = (named(self.eval_dataset) or {})[eval_dataset]
        return self._loader(self.eval_dataset if eval_dataset is None else eval_dataset, self.args.eval_batch_size)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return a loader of batches of a data set."""
        return self._loader(test_dataset, self.args.eval_batch_size)

    def get_batch_sampler(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler | None:
        """Make the sampler of a data set that the arguments name; None for a stream."""
        chosen: Any = self.args.batch_sampler
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "drop_last": drop_last,
            "valid_label_columns": valid_label_columns,
            "generator": generator,
            "seed": seed,
        }
        if callable(chosen):
            made: BatchSampler = chosen(dataset, **options)
            return made
        if is_stream(dataset):
            return None
        if chosen is BatchSamplers.GROUP_BY_LABEL:
            return GroupByLabelBatchSampler(dataset, **options)
        if chosen is BatchSamplers.BATCH_SAMPLER:
            return DefaultBatchSampler(RandomSampler(range(len(dataset)), generator=generator), **options)
        return NoDuplicatesBatchSampler(dataset, **options)

    def get_multi_dataset_batch_sampler(
        self,
        dataset: ConcatDataset[Any],
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int | None = 0,
    ) -> BatchSampler:
        """Make the sampler over several data sets that the arguments name."""
        chosen: Any = self.args.multi_dataset_batch_sampler
        if chosen is MultiDatasetBatchSamplers.ROUND_ROBIN:
            chosen = RoundRobinBatchSampler
        elif chosen is MultiDatasetBatchSamplers.PROPORTIONAL:
            chosen = ProportionalBatchSampler
        made: BatchSampler = chosen(dataset, batch_samplers=batch_samplers, generator=generator, seed=seed)
        return made

    def collect_features(self, inputs: Mapping[str, Any]) -> tuple[list[dict[str, Any]], Tensor | None]:
        """Split a batch into the features of each column and the labels."""
        prefixes = [name.removesuffix("input_ids") for name in inputs if name.endswith("_input_ids")]
        features = [
            {name[len(prefix) :]: value for name, value in inputs.items() if name.startswith(prefix)}
            for prefix in prefixes
        ]
        return features, inputs.get("label")

    def compute_loss(
        self,
        model: EmbeddingModel,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """Return the loss of a batch, (), of several named terms their sum; with no outputs, if asked for them."""
        features, labels = self.collect_features(inputs)
        loss: nn.Module = self.loss[inputs["dataset_name"]] if isinstance(self.loss, Mapping) else self.loss
        value = loss(features, labels)
        total: Tensor = torch.stack(list(value.values())).sum() if isinstance(value, dict) else value
        return (total, {}) if return_outputs else total

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """Return the number of rows that a loader has."""
        return len(dataloader.dataset)  # type: ignore[arg-type]

    def _loader(self, dataset: Any, batch_size: int) -> DataLoader[Any]:
        if dataset is None:
            raise ConfigError("got no data set to make batches of; expected one: pass it to the trainer")
        sets, drop_last = named(dataset), self.args.dataloader_drop_last
        generator = torch.Generator().manual_seed(self.args.seed)
        if is_stream(dataset):
            return DataLoader(dataset, batch_size, collate_fn=self.data_collator, drop_last=drop_last)

        def sampler(one: Any) -> Any:
            columns = self.data_collator.valid_label_columns
            return self.get_batch_sampler(one, batch_size, drop_last, columns, generator, self.args.seed)

        if sets is None:
            return DataLoader(dataset, batch_sampler=sampler(dataset), collate_fn=self.data_collator)
        joined: Any = ConcatDataset(
            [[{**row, "dataset_name": name} for row in one] for name, one in sets.items()]  # type: ignore[misc]
        )
        turns = self.get_multi_dataset_batch_sampler(
            joined, [sampler(one) for one in sets.values()], generator, self.args.seed
        )
        return DataLoader(joined, batch_sampler=turns, collate_fn=self.data_collator)


def check_overrides(kind: type, base: type) -> None:
    """Look for methods of a trainer's own that training does not call, warn of those that the user may call.

    Args:
        kind: the class of the trainer.
        base: that of this package which it is or derives from.

    Raises:
        ConfigError: it has one that only training would call.
    """
    for name in (*_NOT_CALLED, *_NOT_CALLED_IN_TRAINING):
        if getattr(kind, name, None) is getattr(base, name, None):
            continue
        owner = next(one.__name__ for one in kind.__mro__ if name in vars(one))
        if name in _NOT_CALLED_IN_TRAINING:
            warn(f"got {owner} with a method {name} of its own, which training does not call: use callbacks there")
            continue
        raise ConfigError(
            f"got {owner} with a method {name} of its own, which is not called; expected none: pass a loss, callbacks "
            f"or arguments in its place"
        )
