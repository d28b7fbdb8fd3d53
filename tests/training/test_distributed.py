"""Processes that learn together meet, or say why they do not."""

import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from torch import distributed

from napari_semsr.core import Cancelled, OptionError, Progress, SemsrError, Waiting
from napari_semsr.training.distributed import Rendezvous, check_machines
from napari_semsr.training.recipe import Recipe
from tests import children

NODES = {
    "name": "n",
    "kind": "supervised",
    "architecture_options": {"width": 4, "fine_blocks": 1, "dilations": [1]},
    "data": {"phantoms": 1.0, "scene_px": 32, "patch_px": 32},
    "precision": "fp32",
    "workers": 0,
}
VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "SLURM_PROCID")
VARIABLES += ("TORCHELASTIC_RUN_ID",)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Place:
    """What Lightning knows of where processes meet."""

    def __init__(self, port: int) -> None:
        self.main_address, self.main_port = "127.0.0.1", port


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait half a second, and choose the interfaces, which a meeting else chooses."""
    monkeypatch.setenv("SEMSR_WAIT_S", "0.5")
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "lo")


class Ranked(Rendezvous):
    """One of two processes, as Lightning would have counted them."""

    def __init__(self, nodes: int, rank: int, place: Place) -> None:
        self.stop, self.reports = threading.Event(), queue.Queue[Progress]()
        self.rank = rank
        super().__init__(nodes, self.stop, self.reports)
        self.cluster_environment = place  # type: ignore[assignment]

    @property
    def global_rank(self) -> int:
        return self.rank

    world_size, local_rank = 2, 0  # type: ignore[assignment]


@pytest.mark.usefixtures("_short")
def test_first_machine_says_where_it_waits_and_gives_up(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    port = _free_port()
    made = Ranked(2, 0, Place(port))
    with pytest.raises(SemsrError, match=rf"did not come to here:{port} within 0\.5 s"):
        made.meet()
    said = made.reports.get_nowait()
    assert isinstance(said, Waiting)
    assert f"NODE_RANK=1 MASTER_ADDR=here MASTER_PORT={port}" in said.message
    assert not distributed.is_initialized()


def test_other_machine_says_whom_it_waits_for_and_can_be_stopped() -> None:
    port = _free_port()
    made = Ranked(2, 1, Place(port))
    made.stop.set()
    with pytest.raises(Cancelled):
        made.meet()
    assert f"the first machine at 127.0.0.1:{port}" in made.reports.get().message


@pytest.mark.usefixtures("_short")
def test_unknown_address_and_taken_port_are_said() -> None:
    unknown = Place(9)
    unknown.main_address = "no.such.host.invalid"
    with pytest.raises(OptionError, match=r"must answer at no\.such\.host"):
        Ranked(2, 1, unknown).meet()
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        with pytest.raises(OptionError, match="must be free"):
            Ranked(1, 0, Place(door.getsockname()[1])).meet()


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("_short")
def test_one_machine_listens_to_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMSR_WAIT_S", "60")
    place = Place(_free_port())
    made = Ranked(1, 0, place)

    def wait() -> None:
        with pytest.raises(Cancelled):
            made.meet()

    waiting = threading.Thread(target=wait)
    waiting.start()
    while waiting.is_alive() and not _answers("127.0.0.1", place.main_port):
        continue
    try:
        assert _answers("127.0.0.1", place.main_port)
        assert not _answers("127.0.0.2", place.main_port)  # another address of ours
    finally:
        made.stop.set()
        waiting.join()


@pytest.mark.parametrize(
    ("number", "told"), [("1", "MASTER_ADDR and MASTER_PORT"), ("5", "from 0 to 1")]
)
def test_machine_without_an_address_is_refused(number, told, monkeypatch):
    check_machines(Recipe(name="n", nodes=2))
    monkeypatch.setenv("NODE_RANK", number)
    check_machines(Recipe(name="n", nodes=1))
    with pytest.raises(OptionError, match=told):
        check_machines(Recipe(name="n", nodes=2))


@pytest.mark.parametrize(
    ("name", "value"),
    [("SEMSR_WAIT_S", "soon"), ("SEMSR_WAIT_S", "inf"), ("MASTER_PORT", "70000")],
)
def test_variables_of_a_meeting_are_numbers(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    check_machines(Recipe(name="n", nodes=1))
    with pytest.raises(OptionError, match=f"{name} must be .* got '{value}'"):
        check_machines(Recipe(name="n", nodes=2))


@pytest.mark.slow
def test_wait_is_told_at_once_and_ended_by_an_interrupt(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(NODES))
    call = [sys.executable, "-m", "napari_semsr", "train", tmp_path / "n.yaml"]
    call += ["-o", tmp_path / "run", "--nodes", "2"]
    streams = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with children.started(call, text=True, **streams) as process:
        line = process.stderr.readline()
        assert line.startswith("semsr: waiting for at most 600 s for the other mach")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        status = process.wait(children.LIMIT_S)
    assert rest == "semsr train: Interrupted; what was finished is kept.\n"
    assert status == 130
    assert not (tmp_path / "run").exists()
