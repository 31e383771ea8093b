"""The five real cards beside the repository are read and written without loss."""

from __future__ import annotations

import pytest
from card_skeleton import headings, skeleton
from places import ROOT

from minisbert.card import parse, render, repair
from minisbert.card.markdown import read_document

CARDS = ROOT.parent / "shared" / "cards"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not CARDS.is_dir(), reason="the real cards are not beside the repository"),
]
FACTS = {  # rows, epochs, batch size, longest text, log rows
    "000-answers-74": (74, "4", "8", 256, 0),
    "001-ml-answers-47": (47, "4", "16", 256, 0),
    "002-stackexchange-490k": (489_640, "1", "32", 128, 1),
    "003-wikipedia-29k": (29_352, "1", "8", 256, 7),
    "004-msmarco-533k": (532_761, "3", "64", 256, 49),
}


@pytest.mark.parametrize("name", FACTS)
def test_real_card(name: str) -> None:
    original = (CARDS / f"{name}.md").read_bytes().decode()
    card, facts = repair(original), parse(original)
    assert "â€" not in card
    assert (card != original) == (name[:3] in ("001", "002", "003"))
    written = render(facts)
    assert parse(written) == facts == parse(card)
    assert read_document(written).front_matter == read_document(card).front_matter
    assert headings(written) == headings(card)
    assert sorted(skeleton(written)) == sorted(skeleton(card))
    rows, epochs, batch_size, longest, log_rows = FACTS[name]
    assert facts.training_datasets[0].size == rows
    assert facts.hyperparameters["num_train_epochs"] == epochs
    assert facts.hyperparameters["per_device_train_batch_size"] == batch_size
    assert facts.description.max_seq_length == longest
    assert len(facts.logs.rows if facts.logs else ()) == log_rows
    assert facts.description.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert len(facts.hyperparameters) > 110
    assert len(facts.front_matter.widget) == 5
