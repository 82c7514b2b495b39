"""Useful tokens per second: this engine, the seed's recipe (all padded to 512) and Trainer at its best, in one run.

    python -m tests.benchmarks.training_speed --runs 5

Same model (random, 4 layers, 256 wide), same simulated conversations, same number of them per step. A token is useful if it is no
padding; the seed's recipe has more of them for the same conversation, which it gives an instruction and JSON. The contenders take
turns, `--runs` times; a figure is the median of a contender's runs. CPU seconds stand beside the wall clock, as other work on the
machine changes them less; where they disagree, the machine was not quiet. Ten minutes by default. Trainer needs medkd[bench].
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 8
SEED_LENGTH = 512
OURS = "this engine, ZeRO 1"
MOODS = ("calm", "anxious", "tired", "cheerful")


def conversations(rows: int, seed: int = 1, exchanges: tuple[int, int] = (4, 10)) -> list[dict[str, Any]]:
    """Simulated encounters of so many exchanges with their records."""
    from medkd import config
    from medkd.records import PATIENT_RECORD
    from medkd.simulator.dialogue import speak
    from medkd.simulator.encounters import Case, draw_facts

    topics = config.load(None).generation_settings.conversation_topics
    chance = random.Random(seed)
    found = []
    for index in range(rows):
        case = Case(
            topic=chance.choice(topics),
            mood=chance.choice(MOODS),
            exchanges=chance.randint(*exchanges),
            age=None,
            sex=None,
            style="plain",
        )
        spoken = speak(case, draw_facts(case, chance), chance)
        found.append({"sample_id": str(index), "input": spoken.conversation, "output": PATIENT_RECORD.canonical(spoken.record)})
    return found


class Pace(NamedTuple):
    """Useful tokens by second of wall clock and by second of CPU of this process, and conversations by second of wall clock."""

    wall: float
    cpu: float
    rows: float


class Clock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def pace(self, tokens: int, rows: int) -> Pace:
        wall = time.perf_counter() - self._wall
        return Pace(tokens / wall, tokens / (time.process_time() - self._cpu), rows / wall)


class Bench:
    """One family's model and data, and the contenders' ways through them."""

    def __init__(self, family: str, rows: Sequence[dict[str, Any]], layers: int, width: int, repeat: float) -> None:
        from medkd.config import StudentConfig
        from medkd.records import PATIENT_RECORD
        from medkd.samples import INSTRUCTION
        from medkd.store.files import open_store
        from medkd.student.tokens import build_tokenizer, tokenise

        sizes = {"layers": layers, "width": width, "heads": 4, "feed_forward": 4 * width, "vocabulary": 8000}
        self.student = StudentConfig.model_validate(
            {
                "model_name": "bench",
                "max_length": 1024,
                "batch_size": BATCH,
                "num_epochs": 1,
                "zero_stage": 1,
                "architecture": {"family": family, **sizes},
            }
        )
        self.store = open_store("memory://bench")
        self.tokenizer = build_tokenizer(self.store, self.student, rows, PATIENT_RECORD, Path("unused"))
        self.set_aside: Counter[str] = Counter()
        self.tokens = list(tokenise(self.tokenizer, rows, self.set_aside))
        self.apart = family == "t5"
        self.sizes = [row["length"] + (len(row["labels"]) if self.apart else 0) for row in self.tokens]
        self.steps = max(2, round(repeat * len(self.tokens) / BATCH))
        # The seed's recipe: instruction, conversation and JSON as one text (T5: answer apart), cut at 512 tokens.
        self.seed_rows = []
        cut = 0
        for row in rows:
            prompt = self.tokenizer.tokenizer(f"{INSTRUCTION}\n\n{row['input']}\n\n", add_special_tokens=False)["input_ids"]
            answer = self.tokenizer.tokenizer(row["output"], add_special_tokens=False)["input_ids"]
            whole = prompt if self.apart else prompt + answer
            cut += len(whole) > SEED_LENGTH or (self.apart and len(answer) > SEED_LENGTH)
            labels = answer[:SEED_LENGTH] if self.apart else whole[:SEED_LENGTH]
            self.seed_rows.append({"input_ids": whole[:SEED_LENGTH], "labels": labels})
        self.cut_share = cut / len(rows)

    def model(self) -> Any:
        import torch

        from medkd.student.models import make_model

        return make_model(self.store, self.student, self.tokenizer, scratch=Path("unused"), seed=0, dtype=torch.float32)

    def course(self) -> Any:
        from medkd.student.order import course_of

        return course_of(self.student, self.sizes, [len(self.tokens)], world_size=1, seed=0)

    def ours(self, *, zero: int | None) -> Pace:
        """This engine with a ZeRO stage, or (None) the same passes through a plain loop."""
        import torch

        from medkd.student import packing
        from medkd.student.batches import pack
        from medkd.student.engine import make_engine
        from medkd.student.models import AnswerLoss, parameter_groups
        from medkd.student.ranks import Ranks

        model = self.model()
        packing.install(model)
        collate = partial(
            pack,
            family=self.tokenizer.family,
            pad=self.tokenizer.pad,
            start=getattr(model.config, "decoder_start_token_id", None),
        )
        course = self.course()
        ranks = Ranks(rank=0, local_rank=0, world_size=1, local_world_size=1, folder=Path(tempfile.gettempdir()))
        if zero is not None:
            # DeepSpeed wants it set; Trainer would take it for a sign of several ranks.
            os.environ["LOCAL_RANK"] = "0"
            student = self.student.model_copy(update={"zero_stage": zero})
            engine = make_engine(model, student, ranks, torch.device("cpu"), torch.float32)
            del os.environ["LOCAL_RANK"]
        else:
            wrapped = AnswerLoss(model)
            optimizer = torch.optim.AdamW(parameter_groups(wrapped, 0.01), lr=5e-5, fused=True)
        tokens, rows, clock = 0, 0, Clock()
        for number in range(self.steps + 1):
            if number == 1:  # the first step warms up
                tokens, rows, clock = 0, 0, Clock()
            (one,) = course.step(number)
            batch = collate([self.tokens[row] for row in one])
            if zero is not None:
                loss = engine(batch) / batch.labels.numel()
                engine.backward(loss)
                engine.step()
            else:
                loss = wrapped(batch) / batch.labels.numel()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(wrapped.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            tokens += sum(self.sizes[row] for row in one)
            rows += len(one)
        return clock.pace(tokens, rows)

    def trainer(self, *, padded_to: int | None) -> Pace:
        """Hugging Face Trainer: all padded to one length (the seed's rows), or to the batch's and grouped by length."""
        from transformers import Trainer, TrainerCallback, TrainingArguments

        tokens, clock, pace = 0, Clock(), Pace(0, 0, 0)
        rows = self.seed_rows if padded_to else [{key: row[key] for key in ("input_ids", "labels")} for row in self.tokens]

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                nonlocal tokens, clock, pace
                if state.global_step == 1:
                    tokens, clock = 0, Clock()
                else:
                    pace = clock.pace(tokens, (state.global_step - 1) * BATCH)

        def collate(part: list[dict[str, Any]]) -> dict[str, Any]:
            nonlocal tokens
            tokens += sum(len(row["input_ids"]) + (len(row["labels"]) if self.apart else 0) for row in part)
            return _padded(part, self.tokenizer.pad, padded_to)

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                max_steps=self.steps + 1,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                optim="adamw_torch_fused",
                **({} if padded_to else {"train_sampling_strategy": "group_by_length"}),
            )
            Trainer(model=self.model(), args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Watch()]).train()
        return pace


def _padded(part: list[dict[str, Any]], pad: int, to: int | None) -> dict[str, Any]:
    import torch

    def rows(key: str, fill: int) -> Any:
        longest = to or max(len(row[key]) for row in part)
        return torch.tensor([[*row[key], *[fill] * (longest - len(row[key]))] for row in part])

    ids = rows("input_ids", pad)
    return {"input_ids": ids, "attention_mask": (rows("input_ids", -1) != -1).long(), "labels": rows("labels", -100)}


def measure(family: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All contenders on one family: medians and ratios."""
    bench = Bench(family, conversations(arguments.rows), arguments.layers, arguments.width, arguments.repeat)
    contenders: dict[str, Callable[[], Pace]] = {
        OURS: partial(bench.ours, zero=1),
        "this engine, ZeRO 2": partial(bench.ours, zero=2),
        "plain loop, same passes": partial(bench.ours, zero=None),
        "Trainer, padded to 512": partial(bench.trainer, padded_to=SEED_LENGTH),
        "Trainer, dynamic padding, grouped": partial(bench.trainer, padded_to=None),
    }
    paces: dict[str, list[Pace]] = {name: [] for name in contenders}
    for number in range(arguments.runs):
        for name, run in contenders.items():
            pace = run()
            paces[name].append(pace)
            print(
                f"{family} run {number + 1}: {name}: {pace.wall:,.0f} useful tokens/s, {pace.cpu:,.0f} by CPU second", flush=True
            )
    medians = {
        name: Pace(*(statistics.median(getattr(one, key) for one in found) for key in Pace._fields))
        for name, found in paces.items()
    }
    course = bench.course()
    ours = medians[OURS]
    return {
        "family": family,
        "rows": len(bench.tokens),
        "set_aside": sum(bench.set_aside.values()),
        "steps": bench.steps,
        "tokens_per_second": {name: round(pace.wall) for name, pace in medians.items()},
        "tokens_per_cpu_second": {name: round(pace.cpu) for name, pace in medians.items()},
        "conversations_per_second": {name: round(pace.rows, 1) for name, pace in medians.items()},
        "ratio": {name: round(ours.wall / pace.wall, 2) for name, pace in medians.items()},
        "cpu_ratio": {name: round(ours.cpu / pace.cpu, 2) for name, pace in medians.items()},
        "filled_share": round(course.filled_share(bench.sizes), 4),
        "seed_recipe_cut_share": round(bench.cut_share, 3),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [
        "| model | contender | useful tokens/s | ZeRO 1 is | by CPU second | ZeRO 1 is | conversations/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        for name, speed in one["tokens_per_second"].items():
            by_cpu = f"{one['tokens_per_cpu_second'][name]:,} | {one['cpu_ratio'][name]:.2f}x"
            by_row = f"{one['conversations_per_second'][name]:.1f}"
            lines.append(f"| {one['family']} | {name} | {speed:,} | {one['ratio'][name]:.2f}x | {by_cpu} | {by_row} |")
    for one in found:
        lines.append(
            f"\n{one['family']}: passes are filled to {one['filled_share']:.1%}; {one['set_aside']} of "
            f"{one['rows'] + one['set_aside']} samples set aside as too long, no answer cut; "
            f"the seed's recipe cuts {one['seed_recipe_cut_share']:.0%} of them at {SEED_LENGTH} tokens."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--repeat", type=float, default=0.4, help="share of the rows that each run trains on")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--families", nargs="+", default=["gpt2", "t5"])
    arguments = parser.parse_args()
    from medkd.student.compile_ops import operator_variables

    os.environ.update({"DS_ACCELERATOR": "cpu", **operator_variables(os.environ)})
    import torch

    from medkd.student.engine import join
    from medkd.student.ranks import Ranks

    alone = Ranks(rank=0, local_rank=0, world_size=1, local_world_size=1, folder=Path(tempfile.gettempdir()))
    join(alone, torch.device("cpu"))
    found = [measure(family, arguments) for family in arguments.families]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    print(f"\n{time.strftime('%Y-%m-%d')}, {machine}, {arguments.layers} layers, {arguments.width} wide, {arguments.runs} runs\n")
    print(table(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
