"""Save a model in a folder, and upload it to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..modules import WeightedLayerPooling
from ..modules.persistence import write_module
from ..storage.adapters import check_no_base, remove_adapter
from ..storage.files import output_path, replacing_folder
from ..storage.layout import ModelSettings, write_modules, write_settings
from ..version import versions
from .stack import ModuleStack


class SavedModel(ModuleStack):
    """`save_pretrained` and `push_to_hub`."""

    _card: str | None
    _other_settings: dict[str, Any]

    def save_pretrained(
        self, path: str | Path, *, model_name: str | None = None, create_model_card: bool = True
    ) -> None:
        """Write the model in the layout that sentence-transformers 4, 5 and 6 read.

        Of an encoder with an adapter only the adapter is written, as PEFT and the reference do; call
        `merge_and_unload` before to write all weights.

        Args:
            path: the folder to write; files of other names in it stay.
            model_name: the name the model card shows, such as "me/my-model".
            create_model_card: write README.md. A loaded model that was not trained keeps its own.

        Raises:
            InputError: the folder cannot be written, or has weights that would be taken for the base of the adapter.
            InputTypeError: `path` is no path.
            ConfigError: weights of the adapter's base are trained too.
        """
        target = output_path(path)
        adapted = self.transformer.adapter is not None
        if adapted:
            check_no_base(target)
        with replacing_folder(target) as folder:
            self.write_into(folder)
            card = self._model_card(model_name) if create_model_card else None
            if card is not None:
                (folder / "README.md").write_text(card, encoding="utf-8", errors="replace", newline="\n")
            if not adapted:
                remove_adapter(target)

    save = save_pretrained

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = None,
        local_model_path: str | Path | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: list[str] | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the model with its card to the Hub, in one commit, into a repository that is made if there is none.

        Args:
            repo_id: name of the repository, such as "me/my-model"; without an owner it is that of the token.
            token: Hub access token; by default that of `hf auth login` or the environment's HF_TOKEN.
            private: make a private repository.
            safe_serialization: only True: weights are safetensors.
            commit_message: of the commit.
            local_model_path: a folder to upload in place of the model.
            exist_ok: the repository may be there already.
            replace_model_card: write a new card over the one in the repository, which is kept otherwise.
            train_datasets: makes no difference, as in the reference: the card names the data of the training.
            revision: the branch to upload to, which is made from the main one if there is none.
            create_pr: open a pull request, also on a repository of others, instead of changing the main branch.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ConfigError: an argument cannot work, or the repository is there and `exist_ok` is not set.
            InputError: `local_model_path` is no folder, or the model cannot be saved.
            ModelError: there is no token, or the Hub refuses the upload or cannot be reached.
        """
        if not safe_serialization:
            raise ConfigError("got safe_serialization=False; expected True: weights are written as safetensors only")
        from ..storage.hub import push  # few need it

        return push(
            repo_id,
            self._save_for_hub if local_model_path is None else Path(local_model_path),
            token=token,
            private=private,
            commit_message=commit_message or f"Add new {type(self).__name__} model",
            commit_description=f"Files of a {type(self).__name__}:\n\n```\n{self}\n```" if create_pr else None,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card,
            revision=revision,
            create_pr=create_pr,
        )

    def _save_for_hub(self, folder: Path, repository: str, with_card: bool) -> None:
        self.save_pretrained(folder, model_name=repository, create_model_card=with_card)

    def write_into(self, folder: Path) -> None:
        """Write modules and settings, but no card, file by file into an existing folder."""
        folders = write_modules(folder, [self.kind_of(module) for module in self])
        if any(isinstance(module, WeightedLayerPooling) and module.used for module in self):
            self.transformer.ask_for_layers()
        for module, module_folder in zip(self, folders, strict=True):
            self.write_module(module, module_folder)
        settings = ModelSettings(
            self.prompts, self.default_prompt_name, self.similarity_fn_name, self.truncate_dim, self._other_settings
        )
        write_settings(folder, settings, versions=versions())

    def kind_of(self, module: nn.Module) -> str:
        """Name a module as `write_modules` takes it."""
        return type(module).__name__

    def write_module(self, module: nn.Module, folder: Path) -> None:
        """Write a module's configuration and weights."""
        write_module(module, folder)

    def _model_card(self, model_name: str | None) -> str | None:
        """Text of README.md, or None for none; here the text that the model was loaded with."""
        return self._card
