"""The built CPU image, run as docs/docker.md says: `make image-test`, which needs docker or podman.

ENGINE, MODEL (a checkpoint directory) and IMAGE may be set in the environment. pytest is given its path.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.deploy.descriptions import DEPLOY, ROOT

IMAGE = os.environ.get("IMAGE", "malmoi:cpu")
MODEL = (ROOT / os.environ.get("MODEL", "build/demo-gptq")).resolve()
QUESTION = "대한민국의 수도는 어디인가요?"
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
SHARED_MEMORY = "512m"
START_S = 300.0
STOP_S = 45
GIB = 1 << 30


@pytest.fixture(scope="session")
def engine() -> str:
    """docker or podman."""
    chosen = [str(DEPLOY / "image" / "engine.sh"), "docker", "podman"]
    return subprocess.run(chosen, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class Container:
    """One that answers."""

    engine: str
    name: str
    url: str
    ready_s: float

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command inside, as the container's user."""
        return subprocess.run([self.engine, "exec", self.name, *command], capture_output=True, text=True)

    def sees(self, command: str) -> str:
        """What a shell inside prints."""
        return self.execute("sh", "-c", command).stdout.strip()


@pytest.fixture(scope="session")
def container(engine: str) -> Iterator[Container]:
    """A confined container that tests leave as it is."""
    with running(engine, "malmoi-check") as started:
        yield started


@contextmanager
def running(engine: str, name: str) -> Iterator[Container]:
    """The image, serving MODEL; removed on leaving."""
    started_at = time.monotonic()
    try:
        _run(
            *(engine, "run", "--detach", "--name", name, *CONFINED, "--shm-size", SHARED_MEMORY),
            *("--publish", "127.0.0.1::8000", "--volume", f"{MODEL}:/models/{MODEL.name}:ro"),
            *(IMAGE, f"/models/{MODEL.name}"),
        )
        url = "http://" + _run(engine, "port", name, "8000").splitlines()[0]
        while _status(f"{url}/ready") != 200:
            is_running = _run(engine, "inspect", "--format", "{{.State.Running}}", name) == "true"
            assert is_running and time.monotonic() < started_at + START_S, _logs(engine, name)
            time.sleep(0.2)
        yield Container(engine, name, url, time.monotonic() - started_at)
    finally:
        subprocess.run([engine, "rm", "--force", name], capture_output=True, check=False)


def test_size_and_start(engine: str, container: Container) -> None:
    num_bytes = int(_image(engine)["Size"])
    packages = container.sees("dpkg-query --show | wc -l")
    print(
        f"{IMAGE}: {num_bytes / GIB:.2f} GiB, {packages} Debian packages, ready after {container.ready_s:.1f} s"
    )
    assert num_bytes < 4 * GIB


def test_labels_say_what_it_is(engine: str) -> None:
    labels = _image(engine)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "malmoi"
    assert labels["org.opencontainers.image.version"] != "unknown"


def test_runs_as_a_user_of_its_own_below_tini(container: Container) -> None:
    assert container.sees("id -u") == "10001"
    assert container.sees("cat /proc/1/comm") == "tini"


def test_only_cache_and_tmp_are_written_to(container: Container) -> None:
    for place in ("/", "/opt/malmoi", "/usr/bin", "/models", f"/models/{MODEL.name}"):
        assert container.execute("touch", f"{place}/here").returncode != 0, place
    for place in ("/cache", "/tmp"):
        assert container.execute("touch", f"{place}/here").returncode == 0, place


def test_no_compiler_and_no_installer_are_left(container: Container) -> None:
    assert container.sees("command -v cc gcc g++ c++ clang as ld ptxas pip pip3 uv") == ""
    assert container.sees("find / -xdev -type f -name ptxas -o -name 'cc1*' 2>/dev/null") == ""


def test_health_check_of_the_image_passes(engine: str, container: Container) -> None:
    found = _image(engine)
    kind, *command = (found["Config"] | found)["Healthcheck"][
        "Test"
    ]  # docker has it in the one, podman in the other
    assert kind == "CMD"
    assert container.execute(*command).returncode == 0


def test_chats(container: Container) -> None:
    request = {"model": MODEL.name, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    answer = httpx.post(f"{container.url}/v1/chat/completions", json=request, timeout=60).json()
    text = answer["choices"][0]["message"]["content"]
    print(f"{QUESTION} {text}")
    assert "서울" in text


def test_sigterm_lets_a_running_answer_end(engine: str) -> None:
    request = {
        "model": MODEL.name,
        "prompt": QUESTION,
        "max_tokens": 400,
        "ignore_eos": True,
        "stream": True,
    }
    with running(engine, "malmoi-check-drain") as container:
        stop = [engine, "stop", "--time", str(STOP_S), container.name]
        stopping = threading.Thread(target=subprocess.run, args=(stop,), kwargs={"capture_output": True})
        with httpx.stream("POST", f"{container.url}/v1/completions", json=request, timeout=60) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            next(lines)
            stopping.start()
            while _status(f"{container.url}/ready") == 200:
                time.sleep(0.01)
            refused = httpx.post(f"{container.url}/v1/completions", json=request, timeout=10)
            events = [line for line in lines if line]
        stopping.join()
        code = _run(engine, "inspect", "--format", "{{.State.ExitCode}}", container.name)
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert code == "0"


def _image(engine: str) -> dict[str, Any]:
    (found,) = json.loads(_run(engine, "image", "inspect", IMAGE))
    assert isinstance(found, dict)
    return found


def _status(url: str) -> int | None:
    """None where nothing answers."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return None


def _logs(engine: str, name: str) -> str:
    done = subprocess.run([engine, "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout[-4000:]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()
