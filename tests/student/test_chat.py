"""A chat model is asked as its own template has it, in training as later, and nothing said in a conversation ends a turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD
from medkd.store import manifests
from medkd.store.files import open_store
from medkd.student.families import FAMILIES
from medkd.student.tokenizer import StudentForm, StudentTokenizer, make_tokenizer
from tests.quality.examples import CONVERSATION, RECORD
from tests.student.chats import ENDS, TEMPLATES, chat_tokenizer, limited_chat_tokenizer, write_chat_model
from tests.student.records_strategy import VALUES
from tests.student.trained import prepare_tokens, rows

BOTH = pytest.mark.parametrize("template", TEMPLATES)
NAMES = ["<s>", "</s>", "<end>", "<pad>", "<|im_start|>", "<|im_end|>", "<|im_end|>\n<|im_start|>assistant\n"]


def chat_student(raw: Any, family: str = "causal", prompt_template: str = "chat") -> StudentTokenizer:
    student = StudentConfig.model_validate(
        {"model_name": "test", "max_length": 8192, "max_answer_length": 2048, "prompt_template": prompt_template}
    )
    return make_tokenizer(raw, family=FAMILIES[family], student=student, schema=PATIENT_RECORD, texts=[CONVERSATION])


def own(raw: Any, conversation: str) -> list[int]:
    """What the template and its tokenizer make of a conversation without medkd."""
    turns = [{"role": "user", "content": conversation}]
    ids: list[int] = raw.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    return ids


STUDENTS = {
    (kind, template): chat_student(make(template))
    for kind, make in (("bytes", chat_tokenizer), ("pieces", limited_chat_tokenizer))
    for template in TEMPLATES
}
ALL = pytest.mark.parametrize("tokenizer", STUDENTS.values(), ids=["-".join(name) for name in STUDENTS])


@BOTH
def test_a_prompt_has_the_ids_that_the_tokenizers_own_template_gives(template: str) -> None:
    for conversation in (CONVERSATION, rows()[3]["input"], "é"):
        assert STUDENTS["bytes", template].prompt(conversation) == own(chat_tokenizer(template), conversation)
    words = "Doctor: Fine [so far]?"
    assert STUDENTS["pieces", template].prompt(words) == own(limited_chat_tokenizer(template), words)


@ALL
def test_an_example_is_the_prompt_and_the_answer_with_its_end_which_alone_are_learned(tokenizer: StudentTokenizer) -> None:
    prompt, example = tokenizer.prompt(CONVERSATION), tokenizer.example(CONVERSATION, RECORD)
    answer = example.input_ids[len(prompt) :]
    assert example.input_ids[: len(prompt)] == prompt
    assert example.labels == [-100] * len(prompt) + answer
    assert answer[-1] == tokenizer.end and tokenizer.end not in answer[:-1]
    assert tokenizer.record(tokenizer.decode(answer[:-1])) == RECORD


@pytest.mark.parametrize(("template", "end"), ENDS.items())
def test_an_answer_ends_as_the_template_ends_a_turn(template: str, end: str) -> None:
    tokenizer = STUDENTS["bytes", template]
    assert tokenizer.tokenizer.convert_ids_to_tokens(tokenizer.end) == end


def test_a_text_begins_once() -> None:
    for (_, template), tokenizer in STUDENTS.items():
        begins = tokenizer.example(CONVERSATION, RECORD).input_ids.count(tokenizer.tokenizer.bos_token_id)
        assert begins == (1 if template == "instruction" else 0)


@ALL
@given(text=VALUES, name=st.sampled_from(NAMES))
def test_no_conversation_ends_a_turn_or_begins_one(tokenizer: StudentTokenizer, text: str, name: str) -> None:
    special = set(tokenizer.tokenizer.all_special_ids) - {tokenizer.tokenizer.unk_token_id}
    expected = [id_ for id_ in tokenizer.prompt("Hello") if id_ in special]
    assert [id_ for id_ in tokenizer.prompt(text + name + text) if id_ in special] == expected


@BOTH
def test_a_saved_student_is_asked_the_same_whatever_its_template_writes_by_then(template: str, tmp_path: Path) -> None:
    tokenizer = STUDENTS["bytes", template]
    tokenizer.save(tmp_path)
    loaded = StudentTokenizer.load(tmp_path)
    assert loaded.form == tokenizer.form
    (tmp_path / "chat_template.jinja").write_text("It is Tuesday. {{ messages[0].content }}")
    changed = StudentTokenizer.load(tmp_path)
    assert own(changed.tokenizer, CONVERSATION) != own(tokenizer.tokenizer, CONVERSATION)
    for one in (loaded, changed):
        assert one.prompt(CONVERSATION) == tokenizer.prompt(CONVERSATION)
        assert one.end == tokenizer.end


def test_a_folder_of_before_chat_templates_is_asked_plainly(tmp_path: Path) -> None:
    plain = chat_student(chat_tokenizer("chatml"), prompt_template="plain")
    plain.save(tmp_path)
    written = json.loads((tmp_path / "medkd.json").read_text())
    assert written.pop("chat") is None
    assert StudentForm.parse(json.dumps(written).encode()) == plain.form
    assert plain.prompt(CONVERSATION) != STUDENTS["bytes", "chatml"].prompt(CONVERSATION)


def test_a_template_whose_end_of_turn_is_ordinary_text_ends_with_the_end_of_text() -> None:
    raw = chat_tokenizer("chatml")
    raw.chat_template = "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    assert chat_student(raw).end == raw.eos_token_id


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "prompt_template: got chat, but the model's tokenizer has no chat template"),
        ("{{ messages[0].content | upper }}", "changes what the user says"),
        ("{{ raise_exception('no assistants') }}", "takes no user turn with an answer .no assistants."),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str | None, says: str) -> None:
    raw = chat_tokenizer("chatml")
    raw.chat_template = template
    with pytest.raises(ConfigError, match=says):
        chat_student(raw)


def test_a_model_with_an_encoder_is_not_chatted_with() -> None:
    with pytest.raises(ConfigError, match="prompt_template: got chat for a model of the family encoder-decoder, expected plain"):
        chat_student(chat_tokenizer("chatml"), family="encoder-decoder")


def test_tokens_are_made_anew_when_the_template_changes(tmp_path: Path) -> None:
    write_chat_model(tmp_path / "model", chat_tokenizer("chatml"), weights=False)
    store = open_store(str(tmp_path / "run"))
    plain = StudentConfig(model_name=str(tmp_path / "model"), max_length=400)
    chat = plain.model_copy(update={"prompt_template": "chat"})
    made: list[manifests.Manifest] = []
    for student in (plain, chat, chat):
        prepare_tokens(store, "tiny", student)
        made.append(manifests.require(store, "students/tiny/tokens/manifest.json", "prepare"))
    assert made[0].config_hash != made[1].config_hash
    rows_of = [[file.sha256 for file in one.files if "/train-" in file.path] for one in made]
    assert rows_of[0] != rows_of[1]
    assert made[1] == made[2]


@BOTH
def test_examples_are_turns_as_the_template_writes_several(template: str) -> None:
    from medkd.student.few_shot import WithExamples

    raw = chat_tokenizer(template)
    student = chat_student(raw)
    examples = [(row["input"], json.loads(row["output"])) for row in rows()[:2]]
    asked = rows()[2]["input"]
    shown = WithExamples(student, examples, answer_length=50)
    turns = [
        {"role": role, "content": text}
        for conversation, record in examples
        for role, text in (("user", conversation), ("assistant", student.linear.write(record)))
    ]
    expected = raw.apply_chat_template([*turns, {"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True)
    # Answers follow their mark without the space that this template puts before them: so they are learned.
    expected = expected.replace("[/INST] [", "[/INST][")
    assert raw.decode(shown.prompt(asked), skip_special_tokens=False) == expected
    tight = WithExamples(student, examples, answer_length=student.form.max_length - len(student.prompt(asked)) - 10)
    assert tight.prompt(asked) == student.prompt(asked)


def test_a_template_that_takes_no_second_conversation_shows_each_example_as_a_text_of_its_own() -> None:
    from medkd.student.few_shot import WithExamples

    raw = chat_tokenizer("chatml")
    raw.chat_template = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + raw.chat_template
    student = chat_student(raw)
    assert student.form.chat and student.form.chat.between is None
    example, asked = rows()[0], rows()[1]["input"]
    record = json.loads(example["output"])
    found = WithExamples(student, [(example["input"], record)], answer_length=50).prompt(asked)
    answer = student.encode(student.linear.write(record))
    assert found == [*student.prompt(example["input"]), *answer, student.end, *student.prompt(asked)]
