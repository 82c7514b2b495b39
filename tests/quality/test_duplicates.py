"""Duplicates and splits."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.quality.duplicates import THRESHOLD, Duplicate, DuplicateFinder
from medkd.quality.sketches import Sketcher
from medkd.quality.splits import Split, split_of
from medkd.samples import conversation_sha256
from tests.quality.examples import CONVERSATION


def long_text(seed: int, num_words: int = 120) -> str:
    chance = random.Random(seed)
    return " ".join(f"word{chance.randrange(2000)}" for _ in range(num_words))


def with_words_replaced(text: str, places: list[int]) -> str:
    words = text.split()
    for place in places:
        words[place] = "other"
    return " ".join(words)


def find_duplicates(rows: list[tuple[str, str]]) -> list[tuple[str, str, Duplicate]]:
    """(sample_id left out, sample_id that stays, why) among (sample_id, conversation) rows of one split, in any order."""
    known = sorted(rows)
    with tempfile.TemporaryDirectory() as scratch:
        finder = DuplicateFinder(Path(scratch), THRESHOLD)
        for _, conversation in known:
            finder.add(conversation, conversation_sha256(conversation), "train")
        return [(known[one.row][0], known[one.kept_row][0], one) for one in finder.find()]


def found(rows: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(left_out, kept, one.reason) for left_out, kept, one in find_duplicates(rows)]


def test_case_and_spacing_do_not_hide_an_exact_duplicate() -> None:
    rows = [("2", CONVERSATION.upper()), ("1", CONVERSATION), ("3", CONVERSATION.replace(" ", "  "))]
    assert found(rows) == [("2", "1", "exact"), ("3", "1", "exact")]


def test_one_changed_word_is_near_and_five_changed_facts_are_not() -> None:
    text = long_text(1)
    rows = [("1", text), ("2", with_words_replaced(text, [60])), ("3", with_words_replaced(text, [10, 30, 50, 70, 90]))]
    assert found(rows) == [("2", "1", "near")]
    assert 0.85 <= find_duplicates(rows)[0][2].similarity < 1


def test_a_template_with_other_facts_in_it_stays() -> None:
    template = CONVERSATION.replace("Clarke", "{}").replace("metformin", "{}").replace("lisinopril", "{}").replace("dizzy", "{}")
    facts = [
        ("Hall", "aspirin", "losartan", "tired"),
        ("Moss", "insulin", "amlodipine", "weak"),
        ("Reid", "statins", "atenolol", "sick"),
    ]
    assert found([(str(number), template.format(*fact)) for number, fact in enumerate(facts)]) == []


@settings(max_examples=15, deadline=None)
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
    rows += [(f"{name}x", text) for name, text in rows]
    dropped = {left_out for left_out, _, _ in found(rows)}
    assert dropped
    assert all(kept not in dropped and kept < left_out for left_out, kept, _ in found(rows))


def test_a_crowd_of_near_copies_leaves_one() -> None:
    text = long_text(1, 400)
    crowd = [(f"{number:04d}", with_words_replaced(text, [number])) for number in range(300)]
    assert [kept for _, kept, _ in found(crowd)] == ["0000"] * 299


def test_empty_and_short_texts_are_compared_too() -> None:
    rows = [("1", ""), ("2", ""), ("3", "No."), ("4", "no."), ("5", "\ud800")]
    assert found(rows) == [("2", "1", "exact"), ("4", "3", "exact")]
    assert find_duplicates([]) == []


def in_splits(folder: Path, *rows: tuple[Split, str]) -> list[tuple[int, int, str]]:
    finder = DuplicateFinder(folder)
    for split, text in rows:
        finder.add(text, conversation_sha256(text), split)
    return [(one.row, one.kept_row, one.reason) for one in finder.find()]


def test_of_a_pair_across_the_splits_the_tested_row_stays(tmp_path: Path) -> None:
    text, other = long_text(1), long_text(2)
    near = with_words_replaced(text, [60])
    nearer = with_words_replaced(near, [3])
    left_out = in_splits(tmp_path, ("train", text), ("train", other), ("test", near), ("validation", nearer))
    assert left_out == [(0, 2, "leak"), (3, 2, "leak")]


def test_a_tested_conversation_is_found_inside_a_longer_one_and_around_a_shorter_one(tmp_path: Path) -> None:
    texts = [long_text(seed) for seed in range(40)]
    rows: list[tuple[Split, str]] = [
        ("train", f"{long_text(77)} {texts[3]} {long_text(78)}"),
        *[("test", text) for text in texts],
        ("train", " ".join(texts[5].split()[:70])),
        ("train", long_text(79)),
    ]
    assert in_splits(tmp_path, *rows) == [(0, 4, "leak"), (41, 6, "leak")]


def test_training_rows_may_contain_one_another(tmp_path: Path) -> None:
    text = long_text(1)
    assert in_splits(tmp_path, ("train", text), ("train", f"{text} {long_text(2)}")) == []


def test_a_row_that_left_for_a_tested_one_keeps_nobody_out(tmp_path: Path) -> None:
    # 0 is near the tested row 2, 1 is near 0 only: once 0 has left, 1 is like nobody who stays.
    text = long_text(1, 200)
    left_out = in_splits(
        tmp_path,
        ("train", with_words_replaced(text, [20, 40])),
        ("train", with_words_replaced(text, [20, 40, 100, 120, 150, 180])),
        ("test", text),
    )
    assert left_out == [(0, 2, "leak")]


def test_what_is_found_does_not_depend_on_how_much_is_compared_at_once(tmp_path: Path) -> None:
    texts = [long_text(seed) for seed in range(60)]
    rows: list[tuple[Split, str]] = [("train", text) for text in texts]
    rows += [("test", with_words_replaced(text, [40])) for text in texts[:20]]
    rows += [("validation", f"{texts[number]} {long_text(900 + number)}") for number in range(20, 30)]
    rows += [("train", text) for text in texts[25:40]]
    rows += [("train", with_words_replaced(text, [9])) for text in texts[35:50]]
    found = []
    for at_once in (10, 37, 100_000):
        folder = tmp_path / str(at_once)
        folder.mkdir()
        finder = DuplicateFinder(folder, at_once=at_once)
        for split, text in rows:
            finder.add(text, conversation_sha256(text), split)
        found.append(list(finder.find()))
    assert found[0] == found[1] == found[2]
    assert Counter(one.reason for one in found[0]) == {"leak": 30, "exact": 15, "near": 15}


def test_a_sketch_does_not_depend_on_the_batch_it_was_made_in() -> None:
    texts = [long_text(seed, 3 + 7 * seed) for seed in range(30)] + ["", "one"]
    together = Sketcher().sketch(texts)
    start = 0
    for index, text in enumerate(texts):
        alone = Sketcher().sketch([text])
        size = int(together.num_runs[index])
        assert (alone.bands[0] == together.bands[index]).all() and (alone.bits[0] == together.bits[index]).all()
        assert (alone.runs == together.runs[start : start + size]).all()
        start += size


def test_splits_take_their_shares_and_held_out_topics_go_to_the_test() -> None:
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10_000)]
    shares = Counter(split_of(found, "asthma", ()) for found in hashes)
    assert 7_800 < shares["train"] < 8_200
    assert 900 < shares["validation"] < 1_100
    assert {split_of(found, "asthma", ["asthma"]) for found in hashes} == {"test"}
    assert split_of("0" * 64, "asthma", ()) == "train"
    assert split_of("f" * 64, "asthma", ()) == "test"
