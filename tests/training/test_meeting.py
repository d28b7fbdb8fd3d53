"""Processes that learn together meet, or say why they do not."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import distributed

from napari_semsr.core.errors import Cancelled, OptionError, SemsrError
from napari_semsr.core.progress import Waiting
from napari_semsr.training import distributed as meeting
from napari_semsr.training.distributed import Meeting, check_machines

NODES = {
    "name": "n",
    "kind": "supervised",
    "architecture_options": {"width": 4, "fine_blocks": 1, "dilations": [1]},
    "data": {"phantoms": 1.0, "scene_px": 32, "patch_px": 32},
    "nodes": 2,
    "precision": "fp32",
    "workers": 0,
}
VARIABLES = (
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "SLURM_PROCID",
    "TORCHELASTIC_RUN_ID",
)


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


def _meeting(nodes: int, rank: int, port: int, wait_s: float = 0.5) -> Any:
    made = Meeting(nodes, threading.Event(), queue.Queue())
    made.cluster_environment = Place(port)  # type: ignore[assignment]
    made._patience_s = wait_s

    class Ranked(Meeting):
        global_rank, world_size, local_rank = rank, 2, 0

    made.__class__ = Ranked
    return made


def test_first_machine_says_where_it_waits_and_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    port = _free_port()
    made = _meeting(2, 0, port)
    with pytest.raises(SemsrError, match=rf"did not come to here:{port} within 0\.5 s"):
        made._meet()
    said = made._reports.get_nowait()
    assert isinstance(said, Waiting)
    assert f"NODE_RANK=1 MASTER_ADDR=here MASTER_PORT={port}" in said.message
    assert not distributed.is_initialized()


def test_other_machine_says_whom_it_waits_for_and_can_be_stopped() -> None:
    port = _free_port()
    made = _meeting(2, 1, port, 60.0)
    made._stop.set()
    with pytest.raises(Cancelled):
        made._meet()
    assert f"the first machine at 127.0.0.1:{port}" in made._reports.get().message


def test_unknown_address_and_taken_port_are_said() -> None:
    made = _meeting(2, 1, 9)
    made.cluster_environment.main_address = "no.such.host.invalid"
    with pytest.raises(OptionError, match=r"must answer at no\.such\.host"):
        made._meet()
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        with pytest.raises(OptionError, match="must be free"):
            _meeting(1, 0, door.getsockname()[1])._meet()


def test_one_machine_listens_to_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in meeting._INTERFACES:
        monkeypatch.delenv(name, raising=False)
    bound: list[tuple[str, int]] = []
    listening = meeting._listening

    def seen(port: int) -> int:
        number = listening(port)
        with socket.socket(fileno=os.dup(number)) as door:
            bound.append(door.getsockname())
        return number

    monkeypatch.setattr(meeting, "_listening", seen)
    port = _free_port()
    with pytest.raises(SemsrError, match="did not come"):
        _meeting(1, 0, port)._meet()
    assert bound == [("127.0.0.1", port)]


@pytest.mark.parametrize(
    ("number", "told"), [("1", "MASTER_ADDR and MASTER_PORT"), ("5", "from 0 to 1")]
)
def test_machine_without_an_address_is_refused(
    number: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_machines(2)
    monkeypatch.setenv("NODE_RANK", number)
    check_machines(1)
    with pytest.raises(OptionError, match=told):
        check_machines(2)


@pytest.mark.parametrize("value", ["soon", "nan", "-1", "inf"])
def test_time_to_wait_is_a_number_of_seconds(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMSR_WAIT_S", value)
    with pytest.raises(OptionError, match=f"SEMSR_WAIT_S must be .* got '{value}'"):
        check_machines(2)


@pytest.mark.parametrize("port", ["web", "0", "70000"])
def test_port_is_a_number(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", port)
    check_machines(1)
    with pytest.raises(OptionError, match=f"MASTER_PORT must be .* got '{port}'"):
        check_machines(2)


def test_wait_is_told_at_once_and_ended_by_an_interrupt(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(NODES))
    call = [sys.executable, "-m", "napari_semsr", "train", str(tmp_path / "n.yaml")]
    with subprocess.Popen(
        [*call, "-o", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("semsr: waiting for at most 600 s for the other mach")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        status = process.wait(60)
    assert rest == "semsr train: Interrupted; what was finished is kept.\n"
    assert status == 130
    assert not (tmp_path / "run").exists()
