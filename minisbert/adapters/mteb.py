"""A model as an encoder of MTEB 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, shown
from ..similarity import Precision
from ..storage.locate import repository_name
from ._base import Embeddings, TextEncoder, imported_from, model_digest

with imported_from("mteb"):
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

_EXPERIMENTS = ("dtype", "normalize_embeddings", "truncate_dim", "prompts")


@dataclass(eq=False, repr=False)
class MinisbertEncoder(TextEncoder):
    """An encoder that MTEB takes as it is: `mteb.evaluate(MinisbertEncoder("all-MiniLM-L6-v2"), tasks)`.

    MTEB keeps results by the name and revision in `mteb_model_meta`. The revision of a model on the Hub is its commit;
    that of a folder or a loaded model is a digest of weights and settings, so that no results are taken for those of
    another model. Options that change embeddings are written down as an experiment.

    The prompt for a text is that of its task and type of text ("STSBenchmark-query"), else of the task, else of the
    kind of task and type of text, else of the kind of task, else of the type of text ("query", "document").

    MTEB's batch_size is not used: it sends 32 where none is asked for. Set that of the encoder.

    Args:
        model: a loaded model, or the name or folder of one, as of `SentenceTransformer`.
        revision: branch, tag or commit on the Hub.
        device: where a model that is named runs.
        dtype: of the weights of a model that is named.
        batch_size: most texts in one forward pass.
        normalize_embeddings: scale each embedding to length 1.
        truncate_dim: slice embeddings up to this dimension.
        prompts: by name as above; by default the model's own.
        name: that results are kept by, such as "me/my-model"; by default the model's on the Hub, or "local/" and the
            name of the folder, or "local/loaded-model".

    Raises:
        ConfigError: this is no model, options of loading are given with a loaded one, the name has no "/", or the
            prompts are no texts.
    """

    prompts: Mapping[str, str] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._meta: ModelMeta | None = None
        if self.name is not None and (not isinstance(self.name, str) or self.name.count("/") != 1):
            raise ConfigError(f"got name={shown(self.name)}; expected two parts as on the Hub, such as 'me/my-model'")
        if self.prompts is not None and not all(
            isinstance(text, str) for pair in dict(self.prompts).items() for text in pair
        ):
            raise ConfigError(f"got prompts={shown(self.prompts)}; expected texts by names of tasks or types of text")

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The description that MTEB asks for; loads the model. That of a loaded model is made again at each call."""
        if self._meta is not None:
            return self._meta
        meta = self._describe()
        if self._named is not None:
            self._meta = meta
        return meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: ModelMeta) -> None:
        self._meta = meta

    def _describe(self) -> ModelMeta:
        model = self.load()
        if self._named is None:
            name = "local/loaded-model"
        elif (folder := Path(self._named.model)).is_dir():
            name = f"local/{folder.name}"
        else:
            name = repository_name(str(self._named.model))
        commit = None if name.startswith("local/") else model.base_model_revision
        options = {one: getattr(self, one) for one in _EXPERIMENTS if getattr(self, one) not in (None, False)}
        numbers = sum(weight.numel() for weight in model.parameters())
        memory = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**20
        return ModelMeta.create_empty(
            overwrites={
                "name": self.name or name,
                "revision": commit or model_digest(model),
                "embed_dim": self.dimension,
                "max_tokens": model.max_seq_length,
                "n_parameters": numbers,
                "memory_usage_mb": memory,
                "similarity_fn_name": ScoringFunction(model.similarity_fn_name),
                "framework": ["PyTorch"],
                "use_instructions": any(self._prompts().values()),
                "experiment_kwargs": options or None,
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        precision: Precision = "float32",
    ) -> Embeddings:
        """Embed the texts of a task: (texts, dim).

        Args:
            inputs: batches of MTEB with a list of texts under "text".
            task_metadata: name and kind of the task, which choose the prompt.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: MTEB's "query" or "document", or None for texts that are neither.
            batch_size: not used.
            show_progress_bar: show one on a terminal.
            precision: as of `encode`.
        """
        model, kind = self.load(), None if prompt_type is None else prompt_type.value
        texts = [text for batch in inputs for text in batch["text"]]
        encode = {"query": model.encode_query, "document": model.encode_document}.get(str(kind), model.encode)
        prompt = self._prompt(task_metadata.name, task_metadata.type, kind)
        embeddings: Embeddings = encode(
            texts,
            prompt=prompt,
            batch_size=self.batch_size,
            normalize_embeddings=self.normalize_embeddings,
            truncate_dim=self.truncate_dim,
            show_progress_bar=show_progress_bar,
            precision=precision,
        )
        return embeddings

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the model's similarity of all pairs: (n, m)."""
        return self.load().similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the model's similarity row by row: (n,)."""
        return self.load().similarity_pairwise(embeddings1, embeddings2)

    def _prompts(self) -> Mapping[str, str]:
        return self.load().prompts if self.prompts is None else self.prompts

    def _prompt(self, task: str, category: str, kind: str | None) -> str | None:
        names = [f"{task}-{kind}", task, f"{category}-{kind}", category, kind]
        prompts = self._prompts()
        return next((prompts[name] for name in names if name is not None and name in prompts), None)
