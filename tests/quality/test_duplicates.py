"""Duplicates and splits."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.quality.duplicates import find_duplicates
from medkd.quality.splits import split_of
from tests.quality.examples import CONVERSATION


def long_text(seed: int, num_words: int = 120) -> str:
    chance = random.Random(seed)
    return " ".join(f"word{chance.randrange(2000)}" for _ in range(num_words))


def with_words_replaced(text: str, places: list[int]) -> str:
    words = text.split()
    for place in places:
        words[place] = "other"
    return " ".join(words)


def test_case_and_spacing_do_not_hide_an_exact_duplicate() -> None:
    found = find_duplicates([("2", CONVERSATION.upper()), ("1", CONVERSATION), ("3", CONVERSATION.replace(" ", "  "))])
    assert [(one.sample_id, one.kept_sample_id, one.reason, one.similarity) for one in found] == [
        ("2", "1", "exact", 1.0),
        ("3", "1", "exact", 1.0),
    ]


def test_one_changed_word_is_near_and_five_changed_facts_are_not() -> None:
    text = long_text(1)
    rows = [("1", text), ("2", with_words_replaced(text, [60])), ("3", with_words_replaced(text, [10, 30, 50, 70, 90]))]
    found = find_duplicates(rows)
    assert [(one.sample_id, one.kept_sample_id, one.reason) for one in found] == [("2", "1", "near")]
    assert 0.85 <= found[0].similarity < 1


def test_a_template_with_other_facts_in_it_stays() -> None:
    template = CONVERSATION.replace("Clarke", "{}").replace("metformin", "{}").replace("lisinopril", "{}").replace("dizzy", "{}")
    facts = [
        ("Hall", "aspirin", "losartan", "tired"),
        ("Moss", "insulin", "amlodipine", "weak"),
        ("Reid", "statins", "atenolol", "sick"),
    ]
    assert find_duplicates([(str(number), template.format(*fact)) for number, fact in enumerate(facts)]) == []


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order_of_rows(chance: random.Random) -> None:
    texts = [long_text(seed) for seed in range(4)]
    texts += [with_words_replaced(text, [5 * step]) for text in texts for step in (3, 9, 15)] + texts[:2]
    rows = [(f"{number:03d}", text) for number, text in enumerate(texts)]
    expected = find_duplicates(rows)
    chance.shuffle(rows)
    assert find_duplicates(rows) == expected
    assert len(expected) == 14


def test_what_is_dropped_names_a_sample_that_stays() -> None:
    text = long_text(1)
    rows = [(str(step), with_words_replaced(text, list(range(0, 9 * step, 9)))) for step in range(8)]
    found = find_duplicates(rows)
    dropped = {one.sample_id for one in found}
    assert dropped
    assert all(one.kept_sample_id not in dropped and one.kept_sample_id < one.sample_id for one in found)


def test_empty_and_short_texts_are_compared_too() -> None:
    found = find_duplicates([("1", ""), ("2", ""), ("3", "No."), ("4", "no."), ("5", "\ud800")])
    assert [(one.sample_id, one.kept_sample_id) for one in found] == [("2", "1"), ("4", "3")]


def test_splits_take_their_shares_and_held_out_topics_go_to_the_test() -> None:
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10_000)]
    shares = Counter(split_of(found, "asthma", ()) for found in hashes)
    assert 7_800 < shares["train"] < 8_200
    assert 900 < shares["validation"] < 1_100
    assert {split_of(found, "asthma", ["asthma"]) for found in hashes} == {"test"}
    assert split_of("0" * 64, "asthma", ()) == "train"
    assert split_of("f" * 64, "asthma", ()) == "test"
