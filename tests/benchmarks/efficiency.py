"""What one shard process makes of its slots, beside two plain loops: `python -m tests.benchmarks.efficiency [--samples 10000]`.

The simulated teacher answers in a process of its own, after a fixed time. A figure is the share of the ideal rate (calls in
flight / latency / 2 calls a sample), the CPU seconds of 1,000 samples, the peak memory, and for medkd the time from its start to
its first call. medkd does everything: verdicts, journal, validation, grounding, Parquet. The loops send the same two prompts a
sample and parse the record's JSON, nothing else; they are child processes of this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkd import config
from medkd.records import PATIENT_RECORD
from medkd.samples import SampleSpec
from medkd.stages.plan import make_plan
from medkd.teacher import protocols
from medkd.teacher.prompts import PROMPT_VERSION, Request, conversation_request, extraction_request

CASES = ((64, 0.5), (256, 2.0))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process that worked through its samples."""

    who: str
    in_flight: int
    latency: float
    samples: int
    start_seconds: float
    """From the start of the process to its first call."""
    seconds: float
    """From the first call to the end of the process."""
    cpu_seconds: float
    peak_mib: float

    @property
    def share(self) -> float:
        return self.samples * 2 * self.latency / self.in_flight / self.seconds

    def row(self) -> str:
        cpu = self.cpu_seconds / self.samples * 1000
        return (
            f"| {self.who} | {self.in_flight} x {self.latency:g} s | {self.samples:,} | {self.share:.1%} | {cpu:.2f} | "
            f"{self.peak_mib:.0f} | {self.start_seconds:.2f} |"
        )


HEAD = (
    "| client | in flight x latency | samples | share of the ideal | CPU s per 1,000 samples | peak MiB | s to first call |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


@contextmanager
def teacher(latency: float) -> Iterator[str]:
    """The URL of a simulated teacher in a process of its own."""
    command = [sys.executable, "-m", "medkd", "simulate", "--port", "0", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            found = next(match for line in process.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield found[0]
        finally:
            process.terminate()


def first_call(url: str, asked_at: list[float]) -> None:
    """Note when the teacher's first completion is asked for; give up once the teacher is gone."""
    with contextlib.suppress(OSError):
        while True:
            with urllib.request.urlopen(f"{url}/stats") as answer:
                if json.load(answer)["requests"]:
                    asked_at.append(time.monotonic())
                    return
            time.sleep(0.01)


def measured(
    who: str,
    url: str,
    command: Sequence[str],
    samples: int,
    in_flight: int,
    latency: float,
    environ: dict[str, str] | None = None,
) -> Run:
    """Run a command to its end and measure it."""
    asked_at: list[float] = []
    watch = threading.Thread(target=first_call, args=(url, asked_at))
    watch.start()
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ)
    _, status, used = os.wait4(process.pid, 0)
    ended = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{who}: left with {process.returncode}")
    watch.join()
    return Run(
        who=who,
        in_flight=in_flight,
        latency=latency,
        samples=samples,
        start_seconds=asked_at[0] - started,
        seconds=ended - asked_at[0],
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_mib=used.ru_maxrss / 1024,
    )


def medkd_run(samples: int, in_flight: int, latency: float) -> Run:
    """One shard, from its start to its manifest; the plan was made before, beside a teacher of its own."""
    with tempfile.TemporaryDirectory() as folder:
        configs = json.loads((Path(__file__).parents[2] / "configs" / "model_configs.json").read_text(encoding="utf-8"))
        configs["teacher_models"]["simulator"]["limits"] = {"max_concurrency": in_flight}
        file = Path(folder, "configs.json")
        file.write_text(json.dumps(configs))
        flags = ["--prefix", f"{folder}/run", "--teacher", "simulator", "--config", str(file), "--log", "json"]
        size = ["--num-samples", str(samples), "--num-shards", "1", "--exchanges", "4-6"]
        with teacher(0.0) as url:
            plan = [sys.executable, "-m", "medkd", "plan", *flags, "--teacher-url", f"{url}/v1", *size]
            subprocess.run(plan, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Only the tests want pandas. Where it lies about, pyarrow loads it with the first table, some 50 MB.
        Path(folder, "pandas").mkdir()
        Path(folder, "pandas", "__init__.py").write_text("raise ImportError")
        with teacher(latency) as url:
            generate = [sys.executable, "-m", "medkd", "generate", *flags, "--teacher-url", f"{url}/v1"]
            return measured("medkd", url, generate, samples, in_flight, latency, {**os.environ, "PYTHONPATH": folder})


def loop_run(who: str, samples: int, in_flight: int, latency: float) -> Run:
    with teacher(latency) as url:
        loop = [sys.executable, "-m", "tests.benchmarks.efficiency", "--loop", who, "--url", f"{url}/v1"]
        flags = ["--samples", str(samples), "--in-flight", str(in_flight)]
        return measured(who, url, [*loop, *flags], samples, in_flight, latency)


def questions(samples: int) -> Iterator[tuple[SampleSpec, Any]]:
    """What the loops ask: the same prompts as medkd's."""
    teacher = config.load(None).teacher("simulator")
    settings = config.load(None).generation_settings
    length = {"min_exchanges": 4, "max_exchanges": 6}
    settings = settings.model_copy(update={"conversation_length": config.ConversationLength(**length)})
    plan = make_plan(settings, "simulator", teacher, seed=1, total_samples=samples, prompt_version=PROMPT_VERSION)
    return ((plan.spec(index, 0), teacher) for index in range(samples))


def body(request: Request, teacher: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(protocols.encode(teacher, request)[1])
    return fields


def requests_pool(url: str, samples: int, in_flight: int) -> None:
    """Threads that post through one session, as most scripts do."""
    import requests

    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=in_flight))

    def say(fields: dict[str, Any]) -> str:
        answer = session.post(f"{url}/chat/completions", json=fields, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    def sample(spec: SampleSpec, teacher: Any) -> Any:
        talk = say(body(conversation_request(spec, teacher), teacher))
        return json.loads(say(body(extraction_request(talk, PATIENT_RECORD, teacher, spec.seed), teacher)))

    with ThreadPoolExecutor(in_flight) as pool:
        assert len(list(pool.map(lambda question: sample(*question), questions(samples)))) == samples


def async_openai_loop(url: str, samples: int, in_flight: int) -> None:
    """The vendor's asynchronous client behind a semaphore, as its documentation shows it."""
    import asyncio

    from openai import AsyncOpenAI

    async def main() -> None:
        client = AsyncOpenAI(base_url=url, api_key="none")
        slots = asyncio.Semaphore(in_flight)

        async def say(fields: dict[str, Any]) -> str:
            answer = await client.chat.completions.create(**fields)
            return answer.choices[0].message.content or ""

        async def sample(spec: SampleSpec, teacher: Any) -> Any:
            async with slots:
                talk = await say(body(conversation_request(spec, teacher), teacher))
                return json.loads(await say(body(extraction_request(talk, PATIENT_RECORD, teacher, spec.seed), teacher)))

        found = await asyncio.gather(*(sample(*question) for question in questions(samples)))
        assert len(found) == samples

    asyncio.run(main())


LOOPS: dict[str, Callable[[str, int, int], None]] = {"AsyncOpenAI loop": async_openai_loop, "requests pool": requests_pool}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--loop-samples", type=int, default=2_000, help="of the plain loops, whose figures settle sooner")
    parser.add_argument("--only", choices=["64", "256"], help="calls in flight of the one case to measure")
    parser.add_argument("--no-loops", action="store_true", help="medkd's figures alone")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--in-flight", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        LOOPS[args.loop](args.url, args.samples, args.in_flight)
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program starts from its bytecode
    with tempfile.TemporaryDirectory() as bytecode:
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode
        medkd_run(20, 4, 0.0)
        print(HEAD, flush=True)
        for in_flight, latency in CASES:
            if args.only in (None, str(in_flight)):
                print(medkd_run(args.samples, in_flight, latency).row(), flush=True)
                for who in () if args.no_loops else LOOPS:
                    print(loop_run(who, args.loop_samples, in_flight, latency).row(), flush=True)


if __name__ == "__main__":
    main()
