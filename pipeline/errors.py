"""Define the errors that a user can meet: one line each (what, which file, what to do) and an exit code.

Exit codes of every command: 0 ok, 1 failed, 2 usage, 3 finished with skipped inputs,
128 + signal number after an interruption that was saved.
"""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SKIPPED = 3


class PipelineError(Exception):
    """Something the user can act on. The message is one line: what, which file, what to do."""

    exit_code = EXIT_FAILED

    def __str__(self) -> str:
        """Return the message as one line, whatever names from files are in it."""
        return " ".join(super().__str__().splitlines())


class UsageError(PipelineError):
    """The command line or the configuration file is wrong; nothing was written."""

    exit_code = EXIT_USAGE


class BadInput(PipelineError):
    """A data set, folder or table cannot be used."""


class BadTile(BadInput):
    """One tile cannot be decoded to 8-bit RGB; the run continues without it and reports it (P4)."""


class BadSlide(BadInput):
    """A slide cannot be opened, tiled or used; the run continues with the other slides (P4)."""


class BadArtifact(PipelineError):
    """A file of the run is damaged, incomplete or different from its record (P1)."""


class StaleInput(PipelineError):
    """An artefact was made from another version of an input than the current one."""


class DiskFull(PipelineError):
    """No space left; files of earlier runs are unchanged."""


class Locked(PipelineError):
    """Another process works on the same run."""


class WorkerLost(PipelineError):
    """A process that works for the command was killed, hangs or is unreachable."""


class PeerLost(PipelineError):
    """Another process of the same torchrun was killed or failed."""


class Interrupted(PipelineError):
    """SIGINT or SIGTERM arrived; the state was saved and the same command continues."""

    def __init__(self, message: str, *, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
