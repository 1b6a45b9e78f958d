import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.clauses import ClauseSplitter
from decoders.language import detect_language
from decoders.markup import speakable


def split(text, size=10_000, **options):
    splitter = ClauseSplitter(ClauseSplitter.Config(**options))
    clauses = []
    for at in range(0, len(text), size):
        clauses += splitter.feed(text[at : at + size])
    return clauses + splitter.flush()


def texts(text, **options):
    return [c.text for c in split(text, **options)]


@pytest.mark.parametrize(
    ("answer", "clauses"),
    [
        ("Hello there. How are you?", ["Hello there.", "How are you?"]),
        ("Dr. Smith and Mrs. Jones agreed. Good.", ["Dr. Smith and Mrs. Jones agreed.", "Good."]),
        ("J. K. Rowling wrote it. Yes.", ["J. K. Rowling wrote it.", "Yes."]),
        ("It lies in the U.S. near Ohio. Yes.", ["It lies in the U.S. near Ohio.", "Yes."]),
        ("It lies in the U.S. The end.", ["It lies in the U.S.", "The end."]),
        ("Come at 5 p.m. today. Bye.", ["Come at 5 p.m. today.", "Bye."]),
        ("Come at 5 p.m. Bye.", ["Come at 5 p.m.", "Bye."]),
        ("Eat fruit, e.g. pears. Ok.", ["Eat fruit, e.g. pears.", "Ok."]),
        ("No. I do not.", ["No.", "I do not."]),
        ("See No. 5 there. Ok.", ["See No. 5 there.", "Ok."]),
        ("Vitamin C. It helps.", ["Vitamin C.", "It helps."]),
        ("Pi is 3.14 or so. Ok.", ["Pi is 3.14 or so.", "Ok."]),
        ("Meet at 10:30 or 11:45. Ok.", ["Meet at 10:30 or 11:45.", "Ok."]),
        ("It has 1,234,567 people, I hear. Ok.", ["It has 1,234,567 people,", "I hear.", "Ok."]),
        ("On March 5, 2024 we met. Ok.", ["On March 5, 2024 we met.", "Ok."]),
        ("Go to example.com/a.b now. Ok.", ["Go to example.com/a.b now.", "Ok."]),
        ("See https://a.org/x,y?z=1. Ok.", ["See https://a.org/x,y?z=1.", "Ok."]),
        ("Well... maybe. Ok.", ["Well...", "maybe.", "Ok."]),
        ('He said "Stop!" Then he left.', ['He said "Stop!"', "Then he left."]),
        ("(It is late.) Go home.", ["(It is late.)", "Go home."]),
        ("What?! No way!", ["What?!", "No way!"]),
        ("1. One thing\n2. Another thing", ["1, One thing", "2, Another thing"]),
        ("First line\nSecond line", ["First line", "Second line"]),
        ("法国的首都是巴黎。它很美！", ["法国的首都是巴黎。", "它很美！"]),
        ("“你好。”他说。", ["“你好。”", "他说。"]),
        ("这座城市位于河边，人口很多。", ["这座城市位于河边，", "人口很多。"]),
        ("東京は日本の首都です。はい。", ["東京は日本の首都です。", "はい。"]),
        ("¿Cómo estás? ¡Muy bien!", ["¿Cómo estás?", "¡Muy bien!"]),
        ("It was late — we left at once. Ok.", ["It was late —", "we left at once.", "Ok."]),
        (
            "A well-known state-of-the-art trick. Ok.",
            ["A well-known state-of-the-art trick.", "Ok."],
        ),
    ],
)
def test_an_answer_is_cut_where_a_speaker_would_breathe(answer, clauses):
    assert texts(answer) == clauses


@pytest.mark.parametrize(
    ("shown", "spoken"),
    [
        ("**Bold** and *light* and __under__.", "Bold and light and under."),
        ("## Title", "Title"),
        ("- one item", "one item"),
        ("* [x] done item", "done item"),
        ("> quoted words", "quoted words"),
        ("Use `pip install` now.", "Use pip install now."),
        ("[the site](https://a.org/b(c)) is up", "the site is up"),
        ("![a cat](cat.png)", "a cat"),
        ("Great 😀👍🏽!", "Great!"),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", "a, b, 1, 2"),
        ("Look:\n```python\nx = 1\n```\nDone.", "Look: Done."),
        ("2 * 3 and snake_case", "2 * 3 and snake_case"),
        ("a<br>b", "a b"),
        ("5 \\* 3", "5 * 3"),
        ("That is known[1].", "That is known."),
        ("---", ""),
        ("😀 🎉", ""),
        ("...", ""),
    ],
)
def test_markup_is_not_spoken(shown, spoken):
    assert speakable(shown) == spoken


def test_a_dash_inside_a_line_is_no_bullet():
    assert speakable("- really", line_start=False) == "- really"


def test_a_code_block_is_shown_and_not_spoken():
    answer = "Run this.\n```python\nprint('Hi. There.')\n```\nThat is all."
    clauses = split(answer)
    assert [c.text for c in clauses] == ["Run this.", "That is all."]
    assert "".join(c.source for c in clauses) == answer


ANSWERS = st.lists(
    st.sampled_from(
        [
            "Hello", "Dr.", "3.14", "10:30", "U.S.", "e.g.", "yes", "and", "the", "1,000", "x",
            "No.", "https://a.b/c,d", "[a, b](c.d)", "`a. b`", "**bold**", "你好", "。", "，",
            "世界", "...", ",", ".", "!", "?", ":", ";", "—", "-", "\n", "\n- ", "\n1. ", "```",
            "\n```\n", "(", ")", '"', "“", "”", "😀", "|", "*", "[", "]", "!", "www.a.b", "I",
            "Then",
        ]
    ),
    max_size=40,
).flatmap(lambda words: st.sampled_from([" ".join(words), "".join(words)]))  # fmt: skip


@given(ANSWERS, st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_cuts_do_not_depend_on_how_the_answer_arrives(answer, size):
    assert split(answer, size) == split(answer)


@given(ANSWERS)
@settings(max_examples=300, deadline=None)
def test_the_sources_of_the_clauses_are_the_whole_answer(answer):
    assert "".join(c.source for c in split(answer, 3)).rstrip() == answer.rstrip()


@given(st.lists(st.from_regex(r"[a-zé]{1,8}[,.!?;:]?", fullmatch=True), max_size=120))
@settings(max_examples=100, deadline=None)
def test_every_word_is_spoken_in_order_and_no_clause_is_endless(words):
    clauses = split(" ".join(words), 5)
    assert " ".join(c.text for c in clauses).split() == words
    assert all(len(c.text.split()) <= 40 for c in clauses)


def test_a_word_that_may_still_grow_is_no_place_for_a_cut():
    answer = "Hello Hello Hello Hello Hello Hello Hello Hello e.g. this"
    assert split(answer, 1) == split(answer)


def test_the_first_clause_is_short_and_later_ones_are_longer():
    answer = "The old man sat, and smoked, and looked out over the sea, and sighed, and slept."
    first, second = texts(answer)[:2]
    assert first == "The old man sat,"
    assert second == "and smoked, and looked out over the sea,"


def test_a_run_on_is_cut_before_a_small_word():
    answer = (
        "The quick brown fox jumps over the lazy dog and then runs away from the angry farmer who "
        "was chasing it across the field with a stick in his hand because it had eaten his chickens"
    )
    clauses = texts(answer)
    assert clauses[0] == "The quick brown fox jumps over the lazy dog"
    assert all(c.split()[0] in ("The", "and", "in", "with", "because") for c in clauses)


def test_a_sentence_leaves_as_soon_as_the_next_character_is_there():
    splitter = ClauseSplitter()
    assert splitter.feed("It is Paris.") == []
    assert [c.text for c in splitter.feed(" ")] == ["It is Paris."]
    assert splitter.feed("It costs 3.") == []
    assert splitter.feed("5 euros") == []
    assert [c.text for c in splitter.flush()] == ["It costs 3.5 euros"]


def test_a_flushed_splitter_takes_another_answer():
    splitter = ClauseSplitter()
    splitter.feed("El perro es de la casa. Sí")
    splitter.flush()
    assert splitter.feed("Hello there. ")[0].language == "en"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The capital of France is Paris.", "en"),
        ("La capital de Francia es París.", "es"),
        ("¿Cómo estás?", "es"),
        ("La capitale de la France est Paris.", "fr"),
        ("Roma è la capitale d'Italia.", "it"),
        ("A capital do Brasil é Brasília.", "pt"),
        ("Die Hauptstadt von Deutschland ist Berlin.", "de"),
        ("The word für means for.", "en"),
        ("El Niño affects Peru.", "en"),
        ("See https://www.ejemplo.com.es/la/el/de now.", "en"),
        ("我用Python写代码。", "zh"),
        ("こんにちは、世界。", "ja"),
        ("안녕하세요", "ko"),
        ("Привет, мир", "ru"),
        ("नमस्ते दुनिया", "hi"),
        ("مرحبا بالعالم", "ar"),
        ("Machu Picchu", "en"),
        ("42", "en"),
    ],
)
def test_the_language_of_a_clause_is_known(text, language):
    assert detect_language(text) == language


def test_a_short_clause_keeps_the_language_of_the_answer():
    languages = [c.language for c in split("La capital de España es Madrid. Madrid! Claro.")]
    assert languages == ["es", "es", "es"]


def test_a_foreign_name_in_a_chinese_answer_stays_chinese():
    assert detect_language("他喜欢用 Visual Studio Code 写程序。") == "zh"
