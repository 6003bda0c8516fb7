"""From options to a launch: what is chosen for this machine, and what is refused before an engine starts."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from vllm.platforms.interface import UnspecifiedPlatform

from malmoi.checkpoint import open_checkpoint
from malmoi.errors import CheckpointError, LockError, ServeError
from malmoi.memory import GIB
from server import machine
from server.launch import (
    Options,
    bind,
    choose_execution,
    choose_template,
    listen,
    parse_engine_options,
    prepare,
    size_kv_cache,
)
from server.quantization import check_servable

pytestmark = pytest.mark.usefixtures("same_environment")


def options(checkpoint: Path | str, **changes: object) -> Options:
    defaults: dict[str, object] = {
        "checkpoint": str(checkpoint),
        "host": "127.0.0.1",
        "port": 0,
        "name": None,
        "template": "auto",
        "short_lived": True,
        "drain_timeout_s": 30.0,
        "engine_options": (),
    }
    return Options(**(defaults | changes))  # type: ignore[arg-type]


def foreign_copy(checkpoint: Path, directory: Path) -> Path:
    copy = Path(shutil.copytree(checkpoint, directory / "foreign"))
    (copy / "malmoi.json").unlink()
    return copy


def test_launch_is_ready_for_this_machine(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_CPU_NUM_OF_RESERVED_CPU", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    launch = prepare(options(tiny_checkpoint, engine_options=("--max-model-len", "256")))
    with launch.listener:
        assert launch.name == "tiny"
        assert launch.arguments.max_model_len == 256
        assert launch.arguments.chat_template is None, "the checkpoint's own"
        assert launch.arguments.enforce_eager
        # 32 sequences of 256 tokens, 2 layers, keys and values, 2 heads of 64, 2 bytes
        assert launch.arguments.kv_cache_memory_bytes == 32 * 256 * 2 * 2 * 2 * 64 * 2
        assert os.environ["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"
        assert os.environ["LD_PRELOAD"].split(":")[0].endswith("libiomp5.so")
        assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "256"


def test_what_the_user_has_set_stays(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_NUM_OF_RESERVED_CPU", "1")
    monkeypatch.setenv("VLLM_PLUGINS", "mine")
    monkeypatch.setenv("LD_PRELOAD", "/lib/libgomp.so")
    launch = prepare(options(tiny_checkpoint, engine_options=("--kv-cache-memory-bytes", "12345678")))
    launch.listener.close()
    assert os.environ["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "1"
    assert os.environ["VLLM_PLUGINS"] == "mine,malmoi_die_with_parent,bitsandbytes"
    assert "libiomp5" not in os.environ["LD_PRELOAD"]
    assert launch.arguments.kv_cache_memory_bytes == 12345678


def test_foreign_checkpoint_without_template_gets_koraes_and_is_told(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = foreign_copy(tiny_checkpoint, tmp_path)
    (foreign / "chat_template.jinja").unlink()
    with caplog.at_level(logging.WARNING, logger="server"):
        launch = prepare(options(foreign))
    launch.listener.close()
    assert Path(launch.arguments.chat_template).read_text() == Path("malmoi/korae.jinja").read_text()
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 2, "unverified, and the template"


def test_no_template_and_none_wanted(tiny_checkpoint: Path, tmp_path: Path) -> None:
    foreign = foreign_copy(tiny_checkpoint, tmp_path)
    (foreign / "chat_template.jinja").unlink()
    with pytest.raises(ServeError, match="--template own"):
        choose_template(open_checkpoint(foreign), "own")


def test_koraes_template_needs_an_eos(tiny_checkpoint: Path, tmp_path: Path) -> None:
    foreign = foreign_copy(tiny_checkpoint, tmp_path)
    (foreign / "chat_template.jinja").unlink()
    config = json.loads((foreign / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (foreign / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ServeError, match="an eos_token of two characters or more"):
        choose_template(open_checkpoint(foreign), "auto")


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        prepare(options(tmp_path / "nothing"))


def test_hub_id_that_cannot_be_reached_says_what_the_hub_said() -> None:
    with pytest.raises(ServeError, match="a Hugging Face Hub id"):
        prepare(options("no-such-owner/no-such-model"))


class GoingRound(BaseHTTPRequestHandler):
    """A Hub that sends everyone back to where they are."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://{self.headers['Host']}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_hub_whose_http_goes_wrong_is_one_line(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), GoingRound) as hub:
        threading.Thread(target=hub.serve_forever).start()
        here = {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path),
            "HF_HUB_CACHE": str(tmp_path / "hub"),  # which GPTQModel sets where it is imported
        }
        command = [sys.executable, "-m", "server", "owner/model"]
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, env=os.environ | here, timeout=60
        )
        hub.shutdown()
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("checking ")]
    assert len(lines) == 1
    assert "the Hub said: " in lines[0]


def test_broken_lock(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    (broken / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(LockError, match="chat template"):
        prepare(options(broken))


@pytest.mark.parametrize("listening", [True, False])
def test_port_in_use(tiny_checkpoint: Path, listening: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"127.0.0.1:{port}: .*--port N"):
            prepare(options(tiny_checkpoint, port=port))


def test_second_server_on_one_port_is_refused_before_the_first_listens(tiny_checkpoint: Path) -> None:
    with prepare(options(tiny_checkpoint)).listener as first:
        port = first.getsockname()[1]
        with pytest.raises(ServeError, match=f"127.0.0.1:{port}: .*--port N"):
            prepare(options(tiny_checkpoint, port=port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_port_with_connections_of_a_server_that_ended_can_be_served_again() -> None:
    with bind("127.0.0.1", 0) as first:
        address = first.getsockname()
        listen(first)
        with socket.create_connection(address) as client:
            first.accept()[0].close()  # the side that closes first keeps the port for a minute
            client.recv(1)
    with bind(*address) as second:
        listen(second)
        socket.create_connection(address).close()


def test_address_that_is_not_of_this_machine(tiny_checkpoint: Path) -> None:
    with pytest.raises(ServeError, match=r"203\.0\.113\.1:0: expected an address to listen on"):
        prepare(options(tiny_checkpoint, host="203.0.113.1", open_to_all=True))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--max-model-len", "many"], "max-model-len"),
        (["--api-server-count", "2"], "one API process"),
        (["--trust-remote-code"], "never run"),
        (["--uds", "/tmp/x"], "--port"),
        (["--enable-auto-tool-choice"], "--tool-call-parser"),
        (
            ["--enable-auto-tool-choice", "--tool-call-parser", "none-such"],
            "invalid tool call parser: none-such",
        ),
        (["--reasoning-parser", "none-such"], "invalid reasoning parser: none-such"),
        (["--model", "other"], "before `--`"),
        (["other"], "before `--`"),
        (["--host", "0.0.0.0"], "--host goes before `--`"),
        (["--port=8000"], "--port goes before `--`"),  # vLLM's default, but not ours
        (["--shutdown-timeout", "3"], "--drain-timeout"),
        (["--grpc"], "over HTTP"),
        (["--h11-max-header-count", "3"], "httptools"),
        (["--config", "none-such.yaml"], "none-such.yaml"),
        (["--log-config-file", "none-such.json"], "none-such.json"),
    ],
)
def test_options_that_vllm_or_we_do_not_take(given: list[str], said: str) -> None:
    with pytest.raises(ServeError) as error:
        parse_engine_options(["--model", "x", "--host", "127.0.0.1", "--port", "9"], given)
    assert said in error.value.found
    assert "\n" not in str(error.value)


def test_option_file_cannot_name_what_is_ours(tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("port: 9000\n")
    with pytest.raises(ServeError, match="--port goes before"):
        parse_engine_options(["--port", "9"], ["--config", str(tmp_path / "options.yaml")])


def test_plugins_register_their_parsers(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin_of_test.py"
    plugin.write_text(
        "from vllm.reasoning import ReasoningParserManager\n"
        "from vllm.tool_parsers import ToolParserManager\n"
        "ToolParserManager.register_lazy_module('mine', 'nowhere', 'Mine')\n"
        "ReasoningParserManager.register_lazy_module('mine', 'nowhere', 'Mine')\n"
    )
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "mine", "--tool-parser-plugin", str(plugin))
    reasoning = ("--reasoning-parser", "mine", "--reasoning-parser-plugin", str(plugin))
    assert parse_engine_options([], [*tools, *reasoning]).tool_call_parser == "mine"
    plugin.write_text("1 / 0")
    with pytest.raises(ServeError, match="invalid tool call parser"):
        parse_engine_options([], ["--enable-auto-tool-choice", *tools[1:2], "other", *tools[3:]])


def test_name_printed_is_the_name_served(tiny_checkpoint: Path) -> None:
    launch = prepare(options(tiny_checkpoint, engine_options=("--served-model-name", "mine", "too")))
    launch.listener.close()
    assert launch.name == "mine"


def test_rust_frontend_leaves_no_room_for_the_gate(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(ServeError, match="VLLM_USE_RUST_FRONTEND"):
        prepare(options(tiny_checkpoint))


def test_without_a_compiler_the_model_runs_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert choose_execution(short_lived=False, on_cpu=True) == ["--enforce-eager"]
    monkeypatch.setenv("CXX", sys.executable)  # any program that is there
    assert choose_execution(short_lived=False, on_cpu=True) == []
    assert choose_execution(short_lived=True, on_cpu=True) == ["--enforce-eager"]
    assert choose_execution(short_lived=True, on_cpu=False) == []


@pytest.mark.parametrize("given", [(), ("--max-model-len", "auto"), ("--max-model-len", "-1")])
def test_unset_and_auto_are_sized_for_the_longest_sequence(
    tiny_checkpoint: Path, given: tuple[str, ...]
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    arguments = parse_engine_options([], given)
    size_kv_cache(checkpoint, arguments)
    assert arguments.kv_cache_memory_bytes == 32 * 512 * machine.kv_bytes_per_token(checkpoint)


def test_kv_bytes_of_gpt2_and_of_a_config_that_does_not_say(tiny_checkpoint: Path) -> None:
    gpt2 = {"n_head": 12, "n_layer": 10, "n_embd": 768, "n_positions": 1024}
    checkpoint = replace(open_checkpoint(tiny_checkpoint), config=gpt2)
    assert machine.kv_bytes_per_token(checkpoint) == 2 * 10 * 768 * 2
    with pytest.raises(
        ServeError, match=r"num_hidden_layers or n_layer, found neither; .*--kv-cache-memory-bytes"
    ):
        machine.kv_bytes_per_token(replace(checkpoint, config=gpt2 | {"n_layer": None}))


def test_too_little_shared_memory_is_told_before_the_engine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.check_shared_memory()
    machine.check_shared_memory(tmp_path / "none")
    free = SimpleNamespace(free=64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", {tmp_path: free}.__getitem__)
    with pytest.raises(ServeError, match=r"expected 240 MiB free.* found 64 MiB.*--shm-size"):
        machine.check_shared_memory(tmp_path)


def test_an_open_server_is_warned_of(tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with prepare(options(tiny_checkpoint, open_to_all=True)).listener:
        assert "--open-to-all" not in caplog.text  # on loopback there is nothing to warn of
    with (
        caplog.at_level(logging.WARNING, logger="server"),
        prepare(options(tiny_checkpoint, host="0.0.0.0", open_to_all=True)).listener,
    ):
        assert "whoever reaches 0.0.0.0 may use it" in caplog.text


def test_gpu_build_without_a_gpu_is_told_in_a_line(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm.platforms.current_platform", UnspecifiedPlatform())
    monkeypatch.setattr("server.launch.is_cpu_build", lambda: False)
    with pytest.raises(ServeError, match=r"this machine: expected a GPU.*--gpus all"):
        prepare(options(tiny_checkpoint))


def test_not_enough_memory_names_the_parts(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    with pytest.raises(ServeError, match="KV cache for one sequence of 512 tokens"):
        machine.kv_cache_bytes(checkpoint, max_model_len=512, available_bytes=2 * GIB)


def test_kv_cache_takes_at_most_half_of_what_is_left(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    one_sequence = 1024 * machine.kv_bytes_per_token(checkpoint)
    used = checkpoint.weight_bytes + machine.PROCESSES_BYTES
    sizes = [
        machine.kv_cache_bytes(checkpoint, max_model_len=1024, available_bytes=used + left)
        for left in (one_sequence, 10 * one_sequence, 1000 * one_sequence)
    ]
    assert sizes == [one_sequence, 5 * one_sequence, 32 * one_sequence]


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}


@pytest.mark.parametrize(
    ("changes", "on_cpu", "found"),
    [
        ({}, True, None),
        ({"group_size": -1, "desc_act": True}, True, None),
        ({"bits": 8}, False, None),
        ({"bits": 8}, True, "bits=8"),
        ({"bits": 3}, False, "bits=3"),
        ({"sym": False}, True, "sym=false"),
        ({"desc_act": True}, False, "desc_act=true with group_size=128"),
    ],
)
def test_gptq_exports_that_this_vllm_serves(
    tiny_checkpoint: Path, tmp_path: Path, changes: dict[str, object], on_cpu: bool, found: str | None
) -> None:
    foreign = foreign_copy(tiny_checkpoint, tmp_path)
    config = json.loads((foreign / "config.json").read_text()) | {"quantization_config": GPTQ | changes}
    (foreign / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(foreign)
    if found is None:
        check_servable(checkpoint, on_cpu=on_cpu)
    else:
        with pytest.raises(ServeError) as error:
            check_servable(checkpoint, on_cpu=on_cpu)
        assert error.value.found == found


def test_command_ends_in_one_line_and_exit_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", str(tmp_path / "nothing")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("checking ")]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"error: {tmp_path}/nothing: expected a checkpoint directory, found no such directory"
    )


def test_own_unknown_option_exits_2(tiny_checkpoint: Path) -> None:
    command = [sys.executable, "-m", "server", str(tiny_checkpoint), "--prot", "1"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "--prot" in ended.stderr
