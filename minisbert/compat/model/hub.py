"""Upload a model to the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from typing import Any

from ...errors import ConfigError
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
        local_model_path: str | None = None,
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
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        made = api.create_repo(repo_id=repo_id, private=private, repo_type=None, exist_ok=exist_ok or create_pr)
        repo_id = made.repo_id
        self.model_card_data.set_model_id(repo_id)
        if revision is not None:
            api.create_branch(repo_id=repo_id, branch=revision, exist_ok=True)
        options: dict[str, Any] = {
            "repo_id": repo_id,
            "commit_message": commit_message or f"Add new {type(self).__name__} model",
            "commit_description": f"Files of a {type(self).__name__}:\n\n```\n{self}\n```" if create_pr else None,
            "create_pr": create_pr,
            "revision": revision,
        }
        if local_model_path:
            commit: Any = api.upload_folder(folder_path=local_model_path, **options)
        else:
            with tempfile.TemporaryDirectory() as folder:
                self.save_pretrained(
                    folder,
                    model_name=repo_id,
                    create_model_card=replace_model_card
                    or not api.file_exists(repo_id, "README.md", revision=revision),
                    safe_serialization=safe_serialization,
                )
                commit = api.upload_folder(folder_path=folder, **options)
        return str(commit.pr_url if create_pr else commit.commit_url)

    def save_to_hub(
        self,
        repo_id: str,
        organization: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str = "Add new model.",
        local_model_path: str | None = None,
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
