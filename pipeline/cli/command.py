"""Run a command: parse its words, lock the run, turn errors into one line and an exit code."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pipeline.cli.options import Common
from pipeline.cli.parse import Syntax, parse
from pipeline.errors import EXIT_FAILED, BadInput, PipelineError
from pipeline.runtime.caches import temporary_caches
from pipeline.runtime.console import log, start_logging
from pipeline.runtime.device import limit_threads
from pipeline.runtime.process import refuse_several, report_once
from pipeline.runtime.streams import survive_lost_readers
from pipeline.storage.environment import git_state
from pipeline.storage.lock import locked_run

Options = TypeVar("Options")

SCRIPT = "histoheads"
"""The console script of the package."""

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""Words of torch's messages about the memory of an accelerator and of the machine."""

NOT_REPEATABLE = "does not have a deterministic implementation"
"""Words of torch's messages about a kernel that `--deterministic` excludes and that has no substitute."""


@dataclasses.dataclass(frozen=True)
class Command(Generic[Options]):
    """A command; call it with the words after its name."""

    module: str
    """Module behind `python -m`, e.g. "pipeline.train"."""

    description: str | None
    """The module's docstring."""

    options: type[Options]
    """A dataclass of options, or a dataclass of such dataclasses by stage name."""

    work: Callable[[Common, Options], int]
    """Does the work while the run is locked, and returns the exit code."""

    access: Literal["begin", "write", "read", "none"] = "write"
    """begin: the command may make the run folder. read: it needs no lock on the run and no right to write there. none:
    it works on no run, and has no options of one."""

    shares: Callable[[Options], bool] = lambda options: False
    """Returns whether the command shares the run with others of its kind: each locks the file that it writes."""

    together: bool = False
    """Whether several processes, started by torchrun, can do the work together."""

    basics: Sequence[str] = ()
    """Options that `--help` shows. Default: all options."""

    @property
    def syntax(self) -> Syntax[Options]:
        """The command line."""
        stage = self.module.rpartition(".")[2]
        return Syntax(
            called(self.module), self.description or "", self.options, stage, self.basics, self.access != "none"
        )

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the command and return its exit code.

        Args:
            argv: the words after the command's name; default: this process's.
        """
        return guarded(self.module, lambda: self._run(argv), together=self.together)

    def _run(self, argv: Sequence[str] | None) -> int:
        with report_once():
            common, options = parse(self.syntax, sys.argv[1:] if argv is None else argv)
        if self.access not in ("begin", "none") and not common.run.is_dir():
            raise BadInput(f"{common.run}: no such run folder: check --run, or begin with python -m pipeline.prepare")
        if self.access in ("read", "none"):
            return self.work(common, options)
        git_state()
        with locked_run(common.run, shared=self.shares(options)):
            return self.work(common, options)


def command_without_run(
    module: str, description: str | None, options: type[Options], work: Callable[[Options], int]
) -> Command[Options]:
    """Return a command that works on no run; arguments as the fields of `Command`."""
    return Command(module, description, options, lambda _, chosen: work(chosen), access="none")


def called(module: str) -> str:
    """Return the words that start a command, as the user started this process."""
    name = module.partition(".")[2]
    if Path(sys.argv[0]).stem == SCRIPT:
        return f"{SCRIPT} {name}".strip()
    return f"python -m {module}"


def guarded(name: str, work: Callable[[], int], *, together: bool = False) -> int:
    """Do a command's work, turn its errors into one line, and return the exit code.

    Args:
        name: module behind `python -m`, e.g. "pipeline.train".
        work: returns the exit code.
        together: whether several processes, started by torchrun, can do the work together.
    """
    start_logging()
    with survive_lost_readers():
        try:
            if not together:
                refuse_several(name)
            limit_threads()
            with temporary_caches():
                return work()
        except PipelineError as error:
            code, reason = error.exit_code, str(error)
            log.debug("where the error was found", exc_info=True)
        except KeyboardInterrupt:
            code, reason = 130, "interrupted: run the same command again to continue"
        except OSError as error:
            code, reason = EXIT_FAILED, f"{error.filename or name}: {error.strerror or error}"
        except (MemoryError, RuntimeError) as error:
            code, reason = EXIT_FAILED, reason_of(error)
            if not reason:
                raise
        log.error(reason)
        return code


def reason_of(error: MemoryError | RuntimeError) -> str:
    """Return what the user can do about an error of memory or of torch; empty for an error that is our own fault."""
    reason = (str(error).splitlines() or ["no size given"])[0]
    if NOT_REPEATABLE in reason:
        return f"--deterministic: {reason.partition(',')[0]} in this version of torch: leave the option out"
    # torch reports a full memory, its own or an accelerator's, by a RuntimeError
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return f"not enough memory ({reason}): lower --workers or the batch size"
    return ""
