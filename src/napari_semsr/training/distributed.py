"""How processes that learn together are counted, and find one another.

On one machine they meet on its loopback interface, so that no port is open to others.
Several machines meet at the first one's address; that is waited for with a word, can be
interrupted, and ends after a while. torchrun's own rendezvous has none of these three,
so it is used where the user starts the run by it, and ours else.
"""

import atexit
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed

from napari_semsr.core import Cancelled, OptionError, Progress, SemsrError, Waiting
from napari_semsr.models import device_count
from napari_semsr.training.recipe import Recipe

if TYPE_CHECKING:
    import queue
    import subprocess

_LOOPBACK = "127.0.0.1"
_LOOPBACK_NAMES = ("lo", "lo0")
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_LIGHTNINGS = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "NODE_RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "OMP_NUM_THREADS",
)
"""What Lightning writes into the environment for the processes that it starts."""

_WAIT = "SEMSR_WAIT_S"
_WAIT_S = 600.0
_LONGEST_S = 1e6
_LAST_PORT = 65535
_CALL_S = 1.0
_LOOK_S = 0.2
_LATER_S = 15.0  # the first process of a machine speaks before the others
_HANG_S = 60.0  # chosen: what waits for a process that is gone ends by itself before
_HERE = "semsr/here"
_WHOLE_RANKS = ("RANK", "SLURM_PROCID")
_PARTIAL_RANKS = ("NODE_RANK", "LOCAL_RANK")
_TORCHRUN = "TORCHELASTIC_RUN_ID"


def is_first(recipe: Recipe) -> bool:
    """Whether this process, the only one or the first, is the one that writes."""
    if recipe.devices * recipe.nodes == 1:
        return True
    for name in _WHOLE_RANKS:
        if name in os.environ:
            return int(os.environ[name]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in _PARTIAL_RANKS)


def check_machines(recipe: Recipe, device: torch.device | None = None) -> None:
    """Refuse too many devices, or a machine that does not know where the first is."""
    there, what = os.cpu_count() or 1, "processors"
    if device is not None and device.type != "cpu":
        there, what = device_count(device.type), "GPUs"
    if recipe.devices > there:
        msg = (
            f"devices must not exceed the {there} {what} of this machine, got "
            f"{recipe.devices}."
        )
        raise OptionError(msg)
    nodes = recipe.nodes
    if nodes == 1:
        return
    _patience_s()
    port = os.environ.get("MASTER_PORT", "1")
    if not (port.isdecimal() and 0 < int(port) <= _LAST_PORT):
        msg = f"MASTER_PORT must be a number from 1 to {_LAST_PORT}, got {port!r}."
        raise OptionError(msg)
    if any(name in os.environ for name in (*_WHOLE_RANKS, _TORCHRUN)):
        return
    number = os.environ.get("NODE_RANK", "0")
    if number not in map(str, range(nodes)):
        msg = (
            f"NODE_RANK must be from 0 to {nodes - 1} for nodes: {nodes}, got {number}."
        )
        raise OptionError(msg)
    lacking = [n for n in ("MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    if number != "0" and lacking:
        msg = (
            f"Machine {number} of {nodes} needs {' and '.join(lacking)} in its "
            "environment: those that the first one, NODE_RANK=0, says it waits at."
        )
        raise OptionError(msg)


def _patience_s() -> float:
    given = os.environ.get(_WAIT, "")
    try:
        seconds = float(given or _WAIT_S)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_S:
        msg = (
            f"{_WAIT} must be a number of seconds above 0 and at most "
            f"{_LONGEST_S:g}, got {given!r}."
        )
        raise OptionError(msg)
    return seconds


@contextmanager
def environment_kept() -> Iterator[None]:
    """Put the environment back that processes which learn together are given."""
    before = {name: os.environ.get(name) for name in (*_INTERFACES, *_LIGHTNINGS)}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Rendezvous(DDPStrategy):
    """Lightning's strategy, with a wait for other machines that `stop` ends."""

    def __init__(
        self,
        nodes: int,
        stop: threading.Event,
        reports: "queue.Queue[Progress]",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._nodes, self._stop, self._reports = nodes, stop, reports
        self._patience_s = _patience_s()
        self._beside: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()
        self._parent = os.getppid()
        if nodes == 1:
            _stay_inside()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Say of an error that another process of this machine ended, if one did."""
        try:
            yield
        except Exception as error:
            for process in self._beside:  # each ends with the first that is gone
                with suppress(TimeoutExpired):
                    process.wait(_CALL_S)
            if (lost := self._lost()) is None:
                raise
            msg = f"{lost}, and this one with it; what was saved goes on with --resume."
            raise SemsrError(msg) from error
        finally:
            self._ended.set()

    def _lost(self) -> str | None:
        """Say which process beside this one was ended from outside."""
        if os.getppid() != self._parent and int(os.environ.get("LOCAL_RANK", "0")):
            return "The first process ended"
        for process in self._beside:
            if (code := process.poll()) is not None and code < 0:
                how = signal.Signals(-code).name
                return f"A process that learnt along, {process.pid}, ended by {how}"
        return None

    def _watch(self) -> None:
        """End this process if it still waits for one that is gone."""
        while not self._ended.wait(_LOOK_S):
            if (lost := self._lost()) is not None:
                if not self._ended.wait(_HANG_S):
                    self._reports.put(Waiting(0, 0, lost))
                    time.sleep(_CALL_S)
                    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
                return

    def setup_distributed(self) -> None:
        """Meet the other processes, then go on as Lightning does."""
        theirs = getattr(self.launcher, "procs", [])
        if theirs:  # watched here; Lightning would kill this process unsaid
            self._beside = [*theirs]
            self.launcher.procs = self._beside  # type: ignore[union-attr]
            theirs.clear()  # Lightning's watch has this list
            threading.Thread(target=self._watch, daemon=True).start()
        if _TORCHRUN not in os.environ:  # else torchrun has done it
            self.set_world_ranks()
            self.meet()
        super().setup_distributed()

    def meet(self) -> None:
        """Join the processes into one group, or say who did not come in time."""
        begun, told = time.monotonic(), 0
        store = self._store(begun)
        here = store.add(_HERE, 1)
        while here < self.world_size:
            if here != told:
                told = here
                self._tell(told)
            self._look(begun)
            here = store.add(_HERE, 0)
        backend = self._get_process_group_backend()
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("semsr/group", store),  # type: ignore[attr-defined]
            rank=self.global_rank,
            world_size=self.world_size,
            timeout=self._timeout,
            device_id=self.root_device if self.root_device.type != "cpu" else None,
        )
        if backend == "nccl":
            atexit.register(_leave)

    def _store(self, begun: float) -> Any:
        """Open the meeting place, or find it."""
        host, port = self._place
        first = self.global_rank == 0
        given: dict[str, Any] = {"world_size": self.world_size, "is_master": first}
        try:
            if first and self._nodes == 1:
                # a port that this machine alone can reach; the store closes it
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as door:
                    door.bind((_LOOPBACK, port))
                    door.listen()
                    given["master_listen_fd"] = door.detach()
            elif not first:
                self._tell(0)
                while not _answers(host, port):
                    self._look(begun)
            patience = timedelta(seconds=self._patience_s)
            return distributed.TCPStore(  # type: ignore[attr-defined]
                host,
                port,
                timeout=patience,
                wait_for_workers=False,
                use_libuv=False,  # with it PyTorch 2.6 takes no socket
                **given,
            )
        except (RuntimeError, OSError) as error:
            what = "be free" if first else f"answer at {host}"
            msg = (
                f"The port {port} must {what} for the machines to meet, got: "
                f"{str(error).splitlines()[0].rstrip('.')}. Check MASTER_ADDR and "
                "MASTER_PORT."
            )
            raise OptionError(msg) from error

    @property
    def _place(self) -> tuple[str, int]:
        there = self.cluster_environment
        assert there is not None  # noqa: S101 - the trainer has given it
        return (_LOOPBACK if self._nodes == 1 else there.main_address), there.main_port

    def _look(self, begun: float) -> None:
        """Wait a little, and see whether to go on waiting."""
        if self._stop.wait(_LOOK_S):
            raise Cancelled
        late = _LATER_S if self.local_rank else 0.0
        if time.monotonic() - begun > self._patience_s + late:
            host, port = self._shown()
            msg = (
                f"The other machines did not come to {host}:{port} within "
                f"{self._patience_s:g} s: start all of them in that time, or wait "
                f"longer with {_WAIT}=SECONDS; for this machine alone set nodes: 1."
            )
            raise SemsrError(msg)

    def _shown(self) -> tuple[str, int]:
        """Address by which others reach the first machine."""
        host, port = self._place
        if self.global_rank:
            return host, port
        return (socket.gethostname() if host == _LOOPBACK else host), port

    def _tell(self, here: int) -> None:
        """Say what is waited for, and how to bring it about."""
        if self._nodes == 1:
            return
        host, port = self._shown()
        limit = f"for at most {self._patience_s:g} s"
        if self.global_rank == 0:
            each = "NODE_RANK=1" if self._nodes == 2 else "NODE_RANK=1, 2 …"
            said = (
                f"waiting {limit} for the other machines ({here} of {self.world_size} "
                f"processes are here); start the same command on each with {each} "
                f"MASTER_ADDR={host} MASTER_PORT={port} before it"
            )
        else:
            said = f"waiting {limit} for the first machine at {host}:{port}"
        self._reports.put(Waiting(0, 0, said))


def _stay_inside() -> None:
    """Let the libraries below use the loopback interface, unless the user chose one."""
    names = {name for _, name in socket.if_nameindex()}
    inside = next((name for name in _LOOPBACK_NAMES if name in names), None)
    for variable in _INTERFACES if inside else ():
        os.environ.setdefault(variable, str(inside))


def _answers(host: str, port: int) -> bool:
    """Whether somebody listens there; a name that is not known is an error."""
    try:
        with socket.create_connection((host, port), timeout=_CALL_S):
            return True
    except socket.gaierror:
        raise
    except OSError:
        return False


def _leave() -> None:
    """Leave the group of processes at the end, as NCCL wants it."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
