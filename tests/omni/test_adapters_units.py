"""Spelling in few tokens: nothing is lost, and only units are used."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from omni.adapters.units import Spelling, common_units
from omni.errors import WeightsError

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a quixotic zebra"] * 8


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|im_end|>"]
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    where = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(where / "tokenizer.json"))
    return where


def test_common_words_are_units_and_rare_ones_are_spelled_in_pieces(directory):
    full = Tokenizer.from_file(str(directory / "tokenizer.json"))
    units = common_units(directory, TEXTS, least=12)
    spelling = Spelling(directory, units)
    for text in TEXTS[:3]:
        ids = spelling.encode(text)
        assert set(ids) <= set(units)
        assert full.decode(ids) == text
    assert spelling.encode("the") == full.encode("the").ids
    assert len(full.encode(" quixotic").ids) == 1
    assert len(spelling.encode(" quixotic")) > 1


def test_what_was_never_seen_is_spelled_too(directory):
    full = Tokenizer.from_file(str(directory / "tokenizer.json"))
    spelling = Spelling(directory, common_units(directory, TEXTS))
    assert full.decode(spelling.encode("Ünheard! 42")) == "Ünheard! 42"


@pytest.mark.parametrize("content", [None, "{", json.dumps({"model": {"type": "Unigram"}})])
def test_another_tokenizer_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        Spelling(tmp_path, (1,))
