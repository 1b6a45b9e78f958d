"""The sentence encoder with its real weights."""

import numpy as np
import pytest

from omni.embedding import DIMENSIONS, SAME_MEANING, Embedder, embedder
from omni.errors import WeightsError

SAME = [
    ("What is the capital of France?", "Which city is the capital of France?"),
    ("I don't know the answer.", "I'm not sure what the answer is."),
    ("The meeting was moved to Friday.", "They rescheduled the meeting for Friday."),
    ("It is raining outside.", "It's wet out there, the rain is coming down."),
    ("She bought a new car yesterday.", "Yesterday she purchased a new vehicle."),
    ("Please turn off the lights.", "Could you switch the lights off?"),
    ("The apple is red.", "This apple has a red colour."),
    ("Paris is the capital of France.", "The capital of France is Paris."),
    ("I can't hear you well.", "Could you speak up? I have trouble hearing you."),
    ("You're welcome, happy to help.", "No problem, glad I could assist."),
    ("The train leaves at nine.", "The train departs at 9 o'clock."),
    ("He is very tired after work.", "Work exhausted him."),
    ("法国的首都是哪里？", "法国首都是哪个城市？"),
    ("我不知道答案。", "我不清楚答案是什么。"),
    ("外面在下雨。", "外边正在下雨呢。"),
    ("请把灯关掉。", "能不能关一下灯？"),
    ("她昨天买了一辆新车。", "昨天她购买了一辆新汽车。"),
    ("火车九点出发。", "列车在九点钟开。"),
    ("What is the capital of France?", "法国的首都是哪里？"),
    ("It is raining outside.", "外面在下雨。"),
    ("Please turn off the lights.", "请把灯关掉。"),
    ("She bought a new car yesterday.", "她昨天买了一辆新车。"),
]
OTHER = [
    ("What is the capital of France?", "How do I bake bread?"),
    ("The apple is red.", "The apple is green."),
    ("I don't know the answer.", "The answer is forty two."),
    ("It is raining outside.", "The stock market fell today."),
    ("She bought a new car yesterday.", "She sold her house last year."),
    ("Please turn off the lights.", "Please turn up the music."),
    ("The train leaves at nine.", "The cat sleeps on the sofa."),
    ("Paris is the capital of France.", "Berlin is the capital of Germany."),
    ("You're welcome, happy to help.", "I cannot help you with that."),
    ("He is very tired after work.", "He starts a new job on Monday."),
    ("I see a cat on the table.", "I see a car on the street."),
    ("Two plus two is four.", "The weather is lovely in spring."),
    ("法国的首都是哪里？", "怎么做面包？"),
    ("我不知道答案。", "今天股市下跌了。"),
    ("外面在下雨。", "猫在沙发上睡觉。"),
    ("请把灯关掉。", "请把音乐开大一点。"),
    ("她昨天买了一辆新车。", "她去年卖了房子。"),
    ("这个苹果是红色的。", "这个苹果是绿色的。"),
    ("What is the capital of France?", "怎么做面包？"),
    ("It is raining outside.", "猫在沙发上睡觉。"),
    ("Please turn off the lights.", "她去年卖了房子。"),
    ("I don't know the answer.", "今天股市下跌了。"),
]


@pytest.fixture(scope="module")
def real() -> Embedder:
    return embedder()


def cosines(model: Embedder, pairs) -> np.ndarray:
    left, right = (model.encode(side) for side in zip(*pairs, strict=True))
    return (left * right).sum(axis=1)


@pytest.mark.e2e
def test_the_threshold_tells_same_from_other_in_english_chinese_and_across(real):
    same, other = cosines(real, SAME), cosines(real, OTHER)
    assert (same >= SAME_MEANING).all(), same
    wrong = [pair for pair, cosine in zip(OTHER, other, strict=True) if cosine >= SAME_MEANING]
    assert wrong == [
        ("The apple is red.", "The apple is green."),
        ("这个苹果是红色的。", "这个苹果是绿色的。"),
    ]


@pytest.mark.e2e
def test_the_vectors_are_those_of_the_published_model(real):
    # From its ONNX export; that quantises activations too, hence not closer.
    published = [0.11312624, 0.03277735, 0.00661611, 0.00820926]
    np.testing.assert_allclose(real.encode([""])[0, :4], published, atol=0.005)


@pytest.mark.e2e
def test_a_text_has_its_vector_whatever_stands_beside_it(real):
    fresh = Embedder.Config(cache=0, batch=64)
    model = Embedder(embedder_folder(), fresh)
    texts = [text for pair in SAME for text in pair] + ["word " * 100]
    together = model.encode(texts)
    assert together.shape == (len(texts), DIMENSIONS)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([model.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, real.encode(texts), atol=1e-5)
    assert real.encode([]).shape == (0, DIMENSIONS)


@pytest.mark.e2e
def test_a_long_text_counts_to_its_last_token_that_is_read():
    model = Embedder(embedder_folder(), Embedder.Config(max_tokens=8))
    short, long, other = model.encode(["red " * 8, "red " * 8 + "blue " * 50, "blue " * 8])
    np.testing.assert_allclose(short, long, atol=1e-6)
    assert short @ other < 0.9
    assert model.tokens(["red", "red " * 50]) == [1, 8]


@pytest.mark.e2e
def test_the_cache_forgets_what_was_asked_for_longest_ago(monkeypatch):
    model = Embedder(embedder_folder(), Embedder.Config(cache=2))
    computed: list[str] = []
    compute = model._compute
    monkeypatch.setattr(model, "_compute", lambda texts: computed.extend(texts) or compute(texts))
    for text in ("one", "two", "one", "three", "one", "two"):
        model.encode([text])
    assert computed == ["one", "two", "three", "two"]
    model.encode(["a", "b", "c", "a"])  # more than fit
    assert computed[4:] == ["a", "b", "c"]


def embedder_folder():
    from omni.weights import ensure

    return ensure("use-multilingual-v3")


def test_a_folder_without_the_model_says_what_was_expected(tmp_path):
    (tmp_path / "sp.model").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"weights\.npz and sp\.model"):
        Embedder(tmp_path)
