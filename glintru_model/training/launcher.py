"""Starts the processes of a training on this machine, by torchrun's own agent, and tells of their end in one line."""

import logging
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from glintru_model import errors
from glintru_model.errors import GlintruError, TrainingError

T = TypeVar("T")

_HERE = "localhost"
_HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # by torchrun's agent


def launch(work: Callable[..., T], *arguments: str, processes: int) -> T:
    """Call `work` in several processes of this machine and return what it gives in the first.

    Args:
        work: a function of a module; `distributed.joined` in it finds the others.
        arguments: of `work`, the same for all.
        processes: how many, at least 2.

    Raises:
        GlintruError: what a process ended with; the others are ended too.
        KeyboardInterrupt: a signal ended this process, and with it the others.
    """
    with tempfile.TemporaryDirectory() as folder, _own_signals_and_silence():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{_HERE}:0",
            local_addr=_HERE,  # a container may not know its own name
            max_restarts=0,  # a run that is tried again goes on from the last checkpoint
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            first: T = elastic_launch(config, work)(*arguments)[0]
        except ChildFailedError as error:
            raise _explained(error.get_first_failure()[1], processes) from error
        except SignalException as error:
            raise KeyboardInterrupt from error
    return first


@contextmanager
def _own_signals_and_silence() -> Iterator[None]:
    """Put back what torchrun's agent changes, and leave its report of an end, which says less than ours, unsaid."""
    is_main = threading.current_thread() is threading.main_thread()  # elsewhere the agent leaves signals alone
    handlers = {number: signal.getsignal(number) for number in _HANDLED_SIGNALS if is_main}
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # this process but waits meanwhile
    try:
        yield
    finally:
        logging.disable(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _explained(failure: ProcessFailure, processes: int) -> GlintruError:
    """Return the error that a process ended with: our own, or what is known of it."""
    which = f"training process {failure.local_rank} of {processes}"
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        memory = ", which is how the system ends what needs too much memory" if name == "SIGKILL" else ""
        return TrainingError(f"{which} was ended by {name}{memory}; the last checkpoint stays")
    data = failure.error_file_data["message"]
    if not isinstance(data, dict):
        return TrainingError(f"{which} ended with exit code {failure.exitcode}; the last checkpoint stays")
    name, _, message = str(data["message"]).partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, GlintruError):
        return kind(message)
    return TrainingError(f"{which}: {' '.join(str(data['message']).split())[:300]}")
