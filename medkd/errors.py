"""What can go wrong, told apart by type; each kind knows the exit code that Kubernetes acts on.

    MedkdError
    ├── UsageError        64  the command line is wrong
    ├── InputError        65  the data given to this stage is wrong
    ├── UnreachableError  69  teacher or store did not answer for ten minutes
    ├── StoppedError      75  stopped and resumable: SIGTERM, Ctrl-C, peer lost
    │   └── FencedError   75  another writer owns this shard now
    ├── RefusedError      77  key, permission, the provider's money
    │   └── BudgetError   77  the run's own budget is spent
    ├── ConfigError       78  model, request, plan mismatch, missing secret or predecessor
    └── BelowBarError     79  data set or student is complete and misses a bar of the configuration

Messages say which setting, what was got, what is allowed and what to do. They never hold a key, a prompt or a conversation.
"""

from __future__ import annotations


class MedkdError(Exception):
    """Base of every error a user can cause or mend. `exit_code` is the process's exit status."""

    exit_code = 1


class UsageError(MedkdError):
    exit_code = 64


class InputError(MedkdError):
    exit_code = 65


class UnreachableError(MedkdError):
    exit_code = 69


class StoppedError(MedkdError):
    exit_code = 75


class FencedError(StoppedError):
    """A newer writer claimed the shard: send nothing more and leave."""


class RefusedError(MedkdError):
    exit_code = 77


class BudgetError(RefusedError):
    """No budget chunk is left for the run; raising the budget adds chunks and the run continues."""


class ConfigError(MedkdError):
    exit_code = 78


class BelowBarError(MedkdError):
    exit_code = 79
