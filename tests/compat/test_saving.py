"""Saving in the reference's forms, the model card, the Hub, and adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Hub

from minisbert import LoraConfig
from minisbert.card import parse
from minisbert.compat import models
from minisbert.compat.model import SentenceTransformer
from minisbert.compat.model.adapters import of_peft
from minisbert.compat.model.card import SentenceTransformerModelCardData
from minisbert.errors import ConfigError, ModelError

TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> str:
    return str(tiny("bert"))


@pytest.fixture
def model(folder: str) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


def test_forms_of_save(model: SentenceTransformer, tmp_path: Path) -> None:
    model.save(str(tmp_path / "a"), "me/name", True, ["data"])
    assert 'SentenceTransformer("me/name")' in (tmp_path / "a" / "README.md").read_text()
    model.save_pretrained(str(tmp_path / "b"), create_model_card=False, safe_serialization=True)
    assert not (tmp_path / "b" / "README.md").exists()
    with pytest.warns(UserWarning, match="safe_serialization=False is ignored"):
        model.save(str(tmp_path / "c"), safe_serialization=False)
    model.save(None)
    for name in "abc":
        again = SentenceTransformer(str(tmp_path / name), device="cpu")
        assert (again.encode(TEXTS) == model.encode(TEXTS)).all()


class Scaled(models.Module):
    config_keys = ["factor"]

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Any, **kwargs: Any) -> Any:
        features["sentence_embedding"] = features["sentence_embedding"] * self.factor
        return features


class Projection(models.Dense):
    """A module of minisbert by another name."""


def test_modules_of_the_caller(model: SentenceTransformer, tmp_path: Path) -> None:
    parts = [*model, Scaled(2.0), Projection(32, 4)]
    made = SentenceTransformer(modules=parts, device="cpu")
    with pytest.warns(UserWarning, match=r"(Scaled|Projection) is a module of your own: .* with modules=\[\.\.\.\]"):
        made.save(str(tmp_path / "saved"))
    entries = json.loads((tmp_path / "saved" / "modules.json").read_text())
    count = len(parts)
    assert [(entry["path"], entry["type"].rpartition(".")[2]) for entry in entries[-2:]] == [
        (f"{count - 2}_Scaled", "Scaled"),
        (f"{count - 1}_Projection", "Projection"),
    ]
    assert Scaled.load(str(tmp_path / "saved"), f"{count - 2}_Scaled").factor == 2.0
    again = Projection.load(str(tmp_path / "saved"), f"{count - 1}_Projection")
    assert torch.equal(again.linear.weight, parts[-1].linear.weight)
    with pytest.raises(ModelError, match=r"got module type '.*Scaled'; .* runs no code from a model folder"):
        SentenceTransformer(str(tmp_path / "saved"))
    with pytest.raises(ConfigError, match=r"got a module Identity without save\(\)"):
        SentenceTransformer(modules=[*model, torch.nn.Identity()], device="cpu").save(str(tmp_path / "other"))


# ---- the card -------------------------------------------------------------------------------------------------------


def test_entries_of_the_card(folder: str, tmp_path: Path) -> None:
    data = SentenceTransformerModelCardData(
        language="en",
        license="mit",
        model_name="My model",
        model_id="me/mine",
        train_datasets=[{"name": "SNLI", "id": "stanfordnlp/snli"}, {"name": "own"}],
        tags=["sentence-transformers", "cats"],
    )
    data.add_tags(["cats", "dogs"])
    data.add_tags("mice")
    assert data.set_base_model("other/base", "main")
    model = SentenceTransformer(folder, device="cpu", model_card_data=data)
    assert model.model_card_data is data
    assert data.model is model
    model.save(str(tmp_path / "saved"))
    facts = parse((tmp_path / "saved" / "README.md").read_text())
    front = facts.front_matter
    assert (facts.title, front.language, front.license) == ("My model", ("en",), "mit")
    assert (front.datasets, front.tags) == (("stanfordnlp/snli",), ("sentence-transformers", "cats", "dogs", "mice"))
    assert front.base_model == facts.description.base_model == "other/base"
    assert [one.name for one in facts.description.training_datasets] == ["SNLI", "own"]
    assert facts.usage is not None
    assert facts.usage.model_id == "me/mine"
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    again.save(str(tmp_path / "again"))
    assert (tmp_path / "again" / "README.md").read_text() == (tmp_path / "saved" / "README.md").read_text()


def test_the_usual_card(model: SentenceTransformer, tmp_path: Path) -> None:
    model.save(str(tmp_path / "saved"))
    facts = parse((tmp_path / "saved" / "README.md").read_text())
    assert facts.title == "SentenceTransformer"
    assert facts.front_matter.tags[0] == "sentence-transformers"
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    again.save(str(tmp_path / "again"), model_name="me/again")
    assert '"me/again"' in (tmp_path / "again" / "README.md").read_text()


def test_setters_of_the_card() -> None:
    data = SentenceTransformerModelCardData()
    data.set_language("de")
    data.set_license("mit")
    data.set_model_id("me/other")
    assert (data.language, data.license, data.model_id) == (["de"], "mit", "me/other")
    data.set_language(["de", "en"])
    assert data.to_dict()["language"] == ["de", "en"]
    with pytest.warns(UserWarning, match="without an owner"):
        assert SentenceTransformerModelCardData(model_id="mine").model_id is None
    with pytest.warns(UserWarning, match="without a name or an id"):
        assert SentenceTransformerModelCardData(train_datasets=[{"split": "x"}]).train_datasets == []
    with pytest.warns(UserWarning, match="task_name is not shown"):
        SentenceTransformerModelCardData(task_name="finding cats")


def test_a_card_that_fails_does_not_keep_a_model_from_being_saved(model: SentenceTransformer, tmp_path: Path) -> None:
    model.model_card_data.train_datasets = [{"split": "x"}]
    with pytest.warns(UserWarning, match="the model card could not be made"):
        model.save(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "model.safetensors").is_file()


# ---- the Hub --------------------------------------------------------------------------------------------------------


def test_pushing_to_the_hub(model: SentenceTransformer, hub: Hub) -> None:
    address = model.push_to_hub("mine", "hf_me", True, exist_ok=True, revision="dev")
    mine = hub.repositories["me/mine"]
    assert address == f"{hub.url}/me/mine/commit/{mine.branches['dev']}"
    assert mine.private
    assert mine.messages == ["Add new SentenceTransformer model"]
    assert {"README.md", "modules.json", "model.safetensors"} <= set(mine.files("dev"))
    assert set(mine.files()) == {".gitattributes"}
    assert model.model_card_data.model_id == "me/mine"


def test_a_card_on_the_hub_is_kept(model: SentenceTransformer, hub: Hub) -> None:
    mine = hub.add("me/mine")
    mine.commit({"README.md": b"by hand"})
    asked = model.push_to_hub("me/mine", "hf_you", create_pr=True, commit_message="Mine")
    assert asked == f"{hub.url}/me/mine/discussions/1"
    assert mine.files("refs/pr/1")["README.md"] == b"by hand"
    assert mine.messages[-1].startswith("Mine\n\nFiles of a SentenceTransformer:")
    model.push_to_hub("me/mine", "hf_me", exist_ok=True, replace_model_card=True)
    assert b"SentenceTransformer" in mine.files()["README.md"]


def test_a_folder_is_pushed(model: SentenceTransformer, hub: Hub, folder: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("of the folder")
    assert model.save_to_hub("mine", organization="me", token="hf_me", local_model_path=str(copy))
    assert hub.repositories["me/mine"].files()["README.md"] == b"of the folder"
    with pytest.raises(ConfigError, match="expected one owner"):
        model.save_to_hub("you/mine", organization="me")
    (copy / "README.md").write_text("of the folder, changed")
    assert model.save_to_hub("me/mine", "me", "hf_me", local_model_path=str(copy), exist_ok=True)
    assert hub.repositories["me/mine"].files()["README.md"] == b"of the folder, changed"


def test_pickles_are_not_pushed(model: SentenceTransformer, hub: Hub) -> None:
    with pytest.warns(UserWarning, match="safe_serialization=False is ignored"):
        model.push_to_hub("mine", "hf_me", safe_serialization=False)
    assert "model.safetensors" in hub.repositories["me/mine"].files()


# ---- adapters -------------------------------------------------------------------------------------------------------


class PeftConfig:
    """Settings as PEFT has them."""

    def __init__(self, **options: Any) -> None:
        self.peft_type, self.task_type, self.inference_mode = "LORA", None, False
        self.r, self.lora_alpha, self.lora_dropout, self.bias = 8, 8, 0.0, "none"
        self.target_modules: Any = None
        self.use_rslora, self.fan_in_fan_out, self.init_lora_weights, self.use_dora = False, False, True, False
        self.rank_pattern: dict[str, int] = {}
        self.__dict__.update(options)


def test_settings_of_peft() -> None:
    given = PeftConfig(r=4, lora_alpha=16, target_modules={"value", "query"}, task_type="FEATURE_EXTRACTION")
    assert of_peft(given) == LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"])
    with pytest.raises(ConfigError, match="got use_dora=True for LoRA"):
        of_peft(PeftConfig(use_dora=True))
    with pytest.raises(ConfigError, match="expected LoRA"):
        of_peft(PeftConfig(peft_type="IA3"))
    with pytest.raises(ConfigError, match="got int as adapter"):
        of_peft(3)


def test_an_adapter(model: SentenceTransformer, tmp_path: Path) -> None:
    before = model.encode(TEXTS)
    assert model.has_peft_compatible_model()
    model.check_peft_compatible_model()
    with pytest.raises(ConfigError, match="without an adapter"):
        model.active_adapters()
    model.add_adapter(PeftConfig(r=2))
    assert (model.active_adapters(), model.active_adapter()) == (["default"], "default")
    for tensor in model.get_adapter_state_dict().values():
        torch.nn.init.normal_(tensor)
    changed = model.encode(TEXTS)
    assert abs(changed - before).max() > 1e-3
    model.disable_adapters()
    assert abs(model.encode(TEXTS) - before).max() < 1e-6
    model.enable_adapters()
    assert abs(model.encode(TEXTS) - changed).max() < 1e-6
    model.set_adapter("default")
    model.set_adapter(["default"])
    with pytest.raises(ConfigError, match="got adapter_name='other'"):
        model.set_adapter("other")
    model.save(str(tmp_path / "adapter"))
    model.delete_adapter("default")
    assert abs(model.encode(TEXTS) - before).max() < 1e-6
    assert not any(parameter.requires_grad for parameter in model[0].parameters())
    model.load_adapter(str(tmp_path / "adapter"), is_trainable=False)
    assert abs(model.encode(TEXTS) - changed).max() < 1e-6
    assert not any(parameter.requires_grad for parameter in model[0].parameters())


def test_adapters_in_other_forms(model: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match="got adapter_name='other'"):
        model.add_adapter(LoraConfig(), adapter_name="other")
    with pytest.raises(TypeError):
        model.add_adapter(LoraConfig(), foo=1)
    model.add_adapter(adapter_config=LoraConfig(r=2), adapter_name="default")
    assert "lora_A" in str([name for name, _ in model[0].auto_model.named_parameters()])
    model.delete_adapter(adapter_names="default")
    model.transformer.quantize()
    assert not model.has_peft_compatible_model()
    with pytest.raises(ConfigError, match="cannot have an adapter"):
        model.check_peft_compatible_model()
