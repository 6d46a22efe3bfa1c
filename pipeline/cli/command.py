"""What every command does around its work: parse, lock the run, turn errors into one line and an exit code."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.cli.options import Common, StageTypes, parse
from pipeline.errors import EXIT_FAILED, BadInput, PipelineError
from pipeline.runtime.console import log, start_logging
from pipeline.runtime.process import refuse_several, report_once
from pipeline.storage.environment import git_state
from pipeline.storage.lock import run_held

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What torch's messages say of an accelerator's memory and of the machine's."""

NOT_REPEATABLE = "does not have a deterministic implementation"
"""What torch's messages say of a kernel that `--deterministic` leaves out and that has no other."""


def command(
    name: str,
    description: str | None,
    stages: StageTypes,
    work: Callable[[Common, dict[str, Any]], int],
    argv: Sequence[str] | None = None,
    *,
    creates: bool = False,
    reads_only: bool = False,
    shares: Callable[[dict[str, Any]], bool] = lambda options: False,
    together: bool = False,
) -> int:
    """Run one command and return its exit code.

    Args:
        name: module behind `python -m`, e.g. "pipeline.train".
        description: the module's docstring.
        stages: stage name -> options dataclass.
        work: called with the common options and the stages' options while the run is locked; returns the exit code.
        argv: the words after the program's name; default: this process's.
        creates: whether the command may begin a new run folder.
        reads_only: whether it leaves the run alone, so that it needs no lock and no right to write.
        shares: tells from the stages' options whether it works beside others of its kind, each on a file of its own,
            which it locks by itself.
        together: whether several processes, started by torchrun, can do the work together.
    """

    def begin() -> int:
        words = sys.argv[1:] if argv is None else argv
        with report_once():
            common, options = parse(f"python -m {name}", description or "", stages, words)
        if not creates and not common.run.is_dir():
            raise BadInput(f"{common.run}: no such run folder: check --run, or begin with python -m pipeline.prepare")
        if reads_only:
            return work(common, options)
        git_state()
        with run_held(common.run, shared=shares(options)):
            return work(common, options)

    return guarded(name, begin, together=together)


def guarded(name: str, work: Callable[[], int], *, together: bool = False) -> int:
    """Do a command's work, turn its errors into one line, and return the exit code.

    Args:
        name: module behind `python -m`, e.g. "pipeline.train".
        work: returns the exit code.
        together: whether several processes, started by torchrun, can do the work together.
    """
    start_logging()
    try:
        if not together:
            refuse_several(name)
        return work()
    except PipelineError as error:
        log.error(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted: run the same command again to continue")
        return 130
    except OSError as error:
        log.error(f"error: {error.filename or name}: {error.strerror or error}")
        return EXIT_FAILED
    except (MemoryError, RuntimeError) as error:
        reason = (str(error).splitlines() or ["no size given"])[0]
        if NOT_REPEATABLE in reason:
            log.error(
                f"error: --deterministic: {reason.partition(',')[0]} in this version of torch: leave the option out"
            )
            return EXIT_FAILED
        # torch tells of a full memory, its own or an accelerator's, by a RuntimeError
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        log.error(f"error: not enough memory ({reason}): lower --workers or the batch size")
        return EXIT_FAILED
