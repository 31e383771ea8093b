"""Upload a model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError
from ..models.module import warn_of_pickles
from .saving import SavingMethods


class HubMethods(SavingMethods):
    """`push_to_hub` and its older form."""

    def push_to_hub(
        self,
        repo_id: str,
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
        """Upload the model, into a repository that is made if there is none.

        Args:
            repo_id: name of the repository, with its owner.
            token: Hub access token.
            private: make a private repository.
            safe_serialization: makes no difference: weights are safetensors.
            commit_message: of the commit.
            local_model_path: a folder to upload in place of the model.
            exist_ok: the repository may be there already.
            replace_model_card: write a new card over the one in the repository.
            train_datasets: makes no difference, as in the reference: see `SentenceTransformerModelCardData`.
            revision: the branch to upload to, which is made if there is none.
            create_pr: make a pull request.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ConfigError: as for `minisbert.SentenceTransformer.push_to_hub`.
            InputError: see there.
            ModelError: see there.
        """
        if not safe_serialization:
            warn_of_pickles()
        return super().push_to_hub(
            repo_id,
            token=token,
            private=private,
            commit_message=commit_message,
            local_model_path=local_model_path or None,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card or bool(local_model_path),  # a folder is uploaded with its card
            train_datasets=train_datasets,
            revision=revision,
            create_pr=create_pr,
        )

    def _save_for_hub(self, folder: Path, repository: str, with_card: bool) -> None:
        self.model_card_data.set_model_id(repository)
        super()._save_for_hub(folder, repository, with_card)

    def save_to_hub(
        self,
        repo_id: str,
        organization: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str = "Add new model.",
        local_model_path: str | Path | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: list[str] | None = None,
    ) -> str:
        """Upload the model: the older form of `push_to_hub`; see there.

        Raises:
            ConfigError: `organization` is not the owner that `repo_id` names.
        """
        if organization:
            owner, _, _ = repo_id.rpartition("/")
            if owner not in ("", organization):
                raise ConfigError(
                    f"got organization={organization!r} and {repo_id!r}; expected one owner: leave one out"
                )
            repo_id = repo_id if owner else f"{organization}/{repo_id}"
        return self.push_to_hub(
            repo_id,
            token=token,
            private=private,
            safe_serialization=safe_serialization,
            commit_message=commit_message,
            local_model_path=local_model_path,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card,
            train_datasets=train_datasets,
        )
