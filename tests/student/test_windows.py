"""How a conversation is cut into windows: whole turns, in order, all of them, each window within its room."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.samples import turn_lines, turns
from medkd.student.tokenizer import DoesNotFitError
from medkd.student.windows import NoRoomError, cut
from tests.quality.examples import CONVERSATION
from tests.student.test_tokenizer import student_of, trained

LINES = st.lists(
    st.tuples(st.sampled_from(["Doctor: ", "Patient: ", "", "Dr. Smith: "]), st.lists(st.sampled_from("ab hello 12 é".split())))
).map(lambda lines: "\n".join(label + " ".join(words) for label, words in lines))


def size(text: str) -> int:
    """Letters, and seven for what stands around them."""
    return len(text) + 7


def words(text: str) -> list[str]:
    return [word for line in text.split("\n") for word in line.split()]


@given(LINES)
def test_turns_as_they_are_written_are_the_turns(text: str) -> None:
    found = turn_lines(text)
    assert [turns(line) for line in found] == [[turn] for turn in turns(text)]
    assert words("\n".join(found)) == words(text)


@given(LINES, st.integers(10, 200))
def test_a_conversation_that_fits_is_its_only_window(text: str, room: int) -> None:
    (window,) = cut(text, size, max(room, size(text)), 4)
    assert (window.text, list(window.turns)) == (text, list(range(len(turns(text)))))


@settings(max_examples=200)
@given(LINES, st.integers(32, 120), st.integers(0, 5))
def test_windows_are_whole_turns_that_overlap_and_leave_none_out(text: str, room: int, overlap: int) -> None:
    found = cut(text, size, room, overlap)
    assert found == cut(text, size, room, overlap)
    assert all(size(window.text) <= room for window in found)
    if len(found) == 1:
        return
    lines = turn_lines(text)
    assert sorted({turn for window in found for turn in window.turns}) == list(range(len(lines)))
    for window in found:
        assert len(window.turns) == len(turns(window.text))
        inner = [lines[turn] for turn in window.turns[1:-1] if size(lines[turn]) <= room]
        assert all(turn in window.text for turn in inner)
    for one, other in pairwise(found):
        assert (one.turns[0], one.turns[-1]) <= (other.turns[0], other.turns[-1])
        assert other.turns[0] <= one.turns[-1] + 1


def test_neighbours_share_as_many_turns_as_asked_for_unless_they_fill_half_a_window() -> None:
    text = "\n".join(f"Doctor: {number:02d}" for number in range(40))
    shared = [one.turns[-1] + 1 - other.turns[0] for one, other in pairwise(cut(text, size, 7 + 11 * 10, 4))]
    assert set(shared) == {4}
    crowded = [one.turns[-1] + 1 - other.turns[0] for one, other in pairwise(cut(text, size, 7 + 11 * 4, 4))]
    assert set(crowded) == {2}
    apart = [one.turns[-1] + 1 - other.turns[0] for one, other in pairwise(cut(text, size, 7 + 11 * 10, 0))]
    assert set(apart) == {0}


def test_a_turn_longer_than_a_window_is_cut_between_words_and_says_everywhere_who_speaks() -> None:
    said = " ".join(f"word{number:03d}" for number in range(50))
    found = cut(f"Doctor: Well?\nPatient: {said}\nDoctor: I see.", size, 90, 2)
    assert found[0].text.startswith("Doctor: Well?\nPatient: word000") and found[-1].text.endswith("word049\nDoctor: I see.")
    lines = [line for window in found for line in window.text.split("\n")]
    assert all(line.startswith(("Doctor: ", "Patient: ")) for line in lines)
    heard = [word for line in lines for word in line.removeprefix("Patient: ").split() if word.startswith("word")]
    assert set(heard) == set(said.split())
    # Half a window is read again with the next one: what stands at a cut is read whole once.
    together = " ".join(word for window in found for word in window.text.replace("\nPatient: ", " ").split())
    assert all(f"{one} {other}" in together for one, other in pairwise(said.split()))
    assert {turn for window in found for turn in window.turns} == {0, 1, 2}


def test_a_word_longer_than_a_window_is_cut_and_a_window_without_room_is_refused() -> None:
    found = cut("Doctor: " + "é" * 100, size, 40, 2)
    assert all(size(window.text) <= 40 for window in found)
    assert all(set(line.removeprefix("Doctor: ")) == {"é"} for window in found for line in window.text.split("\n"))
    with pytest.raises(NoRoomError):
        cut("Doctor: hello", size, 9, 2)


@pytest.mark.parametrize("family", ["encoder-decoder", "causal"])
def test_every_window_of_a_student_is_a_prompt_that_it_takes(family: str) -> None:
    long = "\n".join([CONVERSATION] * 4)
    tokenizer = student_of(family, trained(), max_length=200)
    found = tokenizer.windows(long)
    assert len(found) > 2
    assert all(len(tokenizer.prompt(window.text)) <= 200 for window in found)
    with pytest.raises(DoesNotFitError, match="conversation_too_long"):
        tokenizer.prompt(long)
    assert [window.text for window in tokenizer.windows("Doctor: Hi.")] == ["Doctor: Hi."]
    (whole,) = student_of(family, trained(), max_length=200, too_long="set_aside").windows(long)
    assert whole.text == long
    with pytest.raises(DoesNotFitError, match="conversation_too_long"):
        student_of(family, trained(), max_length=4).windows(long)
