"""Files that a trainer writes, and the requests to upload or to search, which it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...model import EmbeddingModel
from .arguments import BaseTrainingArguments
from .callbacks import TrainerState


class TrainerFiles:
    """The methods of a trainer that write files.

    Attributes:
        model: the model.
        args: the arguments; `output_dir` is the folder of the files.
        state: of the run.
    """

    model: EmbeddingModel
    args: BaseTrainingArguments
    state: TrainerState

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        """Save the model in a folder, `args.output_dir` by default; of several processes the first one does."""
        if self.args.should_save:
            self.model.save_pretrained(output_dir or self.args.output_dir or "")

    def save_state(self) -> None:
        """Write the state to `trainer_state.json` in `args.output_dir`."""
        if self.args.should_save:
            self.state.save_to_json(self._made_folder() / "trainer_state.json")

    def save_metrics(self, split: str, metrics: Mapping[str, Any], combined: bool = True) -> None:
        """Write metrics to `<split>_results.json` in `args.output_dir`, and add them to `all_results.json`."""
        folder = self._made_folder()
        (folder / f"{split}_results.json").write_text(json.dumps(metrics, indent=4, sort_keys=True), encoding="utf-8")
        if combined:
            path = folder / "all_results.json"
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            path.write_text(json.dumps({**before, **metrics}, indent=4, sort_keys=True), encoding="utf-8")

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,  # noqa: A002 - the reference's name
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Save the model with its card in `args.output_dir`; the last five arguments are not in a card, as there."""
        data = getattr(self.model, "model_card_data", None)
        for value, say in ((language, "set_language"), (license, "set_license"), (tags, "add_tags")):
            if value is not None and data is not None:
                getattr(data, say)(value)
        if model_name is not None and data is not None:
            data.model_name = model_name
        self.save_model()

    def push_to_hub(self, commit_message: str | None = "End of training", **options: Any) -> None:
        """Refuse to upload.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "got push_to_hub of a trainer; expected that of the model: call trainer.model.push_to_hub(NAME) after the "
            "training"
        )

    def hyperparameter_search(self, *arguments: Any, **options: Any) -> None:
        """Refuse to search.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "got hyperparameter_search, which minisbert does not do; expected one run: train in a loop, or within an "
            "optuna study"
        )

    def log_metrics(self, split: str, metrics: Mapping[str, Any]) -> None:
        """Write metrics to standard error."""
        width = max(map(len, metrics), default=0)
        lines = [f"  {name:{width}} = {value}" for name, value in sorted(metrics.items())]
        sys.stderr.write("\n".join([f"***** {split} metrics *****", *lines, ""]))

    def _made_folder(self) -> Path:
        folder = Path(self.args.output_dir or "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
