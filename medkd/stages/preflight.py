"""Checks before a run: all of them are made and said, not only the first that fails; what failed decides the exit code."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from medkd.config import TeacherConfig
from medkd.errors import ConfigError, InputError, MedkdError, RefusedError, UnreachableError, UsageError
from medkd.stages.bookings import Booking
from medkd.stages.plan import Plan
from medkd.teacher import prompts
from medkd.teacher.client import TeacherClient

# With several failures the code of the one that waiting does not mend counts.
_GRAVEST_FIRST = (UsageError, ConfigError, RefusedError, InputError, MedkdError, UnreachableError)

_TINY_CONVERSATION = "Doctor: What brings you in?\nPatient: A cough, for three days."


class PreflightError(MedkdError):
    """One check or more failed; leaves with the code of the gravest."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Findings:
    """What the checks came to, said one by one as they end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = 0
        self._failed: dict[str, MedkdError] = {}
        self._skipped: set[str] = set()

    def check(self, name: str, action: Callable[[], str], needs: tuple[str, ...] = ()) -> None:
        """Make a check: `action` says what it found or raises. Skipped where a check that it builds on did not pass."""
        self._count += 1
        missing = [need for need in needs if need in self._failed or need in self._skipped]
        if missing:
            self._skipped.add(name)
            self._say(f"skip  {name:<14} comes after: {', '.join(missing)}")
            return
        try:
            self._say(f"ok    {name:<14} {action()}")
        except MedkdError as error:
            self._failed[name] = error
            self._say(f"FAIL  {name:<14} {error}")

    def end(self) -> None:
        """PreflightError where a check failed, with what all of them said."""
        if not self._failed:
            return
        kinds = [next(place for place, kind in enumerate(_GRAVEST_FIRST) if isinstance(e, kind)) for e in self._failed.values()]
        gravest = list(self._failed.values())[kinds.index(min(kinds))]
        said = "; ".join(f"{name}: {error}" for name, error in self._failed.items())
        raise PreflightError(
            f"preflight: {len(self._failed)} of {self._count} checks failed. {said}", exit_code=gravest.exit_code
        ) from gravest


def first_call(client: TeacherClient, plan: Plan, teacher: TeacherConfig, booking: Booking) -> str:
    """One small extraction with the parameters of the real ones, paid and booked; says what it took.

    ConfigError where the teacher refuses it, BudgetError where the budget has no room for it.
    """
    request = prompts.extraction_request(_TINY_CONVERSATION, plan.schema, teacher, seed=1)
    # Conversations are written at another temperature; what refuses that one refuses it here already.
    request = replace(request, temperature=teacher.temperature)
    started = time.monotonic()
    answer = client.probe(request, booking.reserve, booking.release)
    booking.settle(answer)
    usage = answer.reply.usage if answer.reply else None
    tokens = f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out" if usage else "no usage in the reply"
    served = f" by {answer.reply.served_model}" if answer.reply and answer.reply.served_model else ""
    money = f", ${answer.cost_usd + answer.possibly_usd:.6f} booked" if answer.cost_usd or answer.possibly_usd else ""
    return f"answered{served} in {time.monotonic() - started:.1f} s, {tokens}{money}"
