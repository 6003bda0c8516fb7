"""Who may reach a server, and what its bounds make of vLLM's options, before an engine starts."""

import os
from pathlib import Path

import pytest

from malmoi.errors import ServeError
from server.bounds import Bounds
from server.launch import cap_tokens, check_access, parse_engine_options, prepare
from tests.server.test_keys import make_key
from tests.server.test_launch import options

pytestmark = pytest.mark.usefixtures("same_environment")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_open_without_keys(host: str) -> None:
    check_access(options("x", host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost.example", ""])
def test_others_than_this_machine_need_keys_or_leave(host: str, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="expected keys"):
        check_access(options("x", host=host))
    check_access(options("x", host=host, open_to_all=True))
    file = tmp_path / "keys.json"
    with pytest.raises(ServeError, match="a file of keys"):
        check_access(options("x", host=host, keys=file, open_to_all=True))
    make_key(file, "one")
    check_access(options("x", host=host, keys=file))


def test_vllms_own_key_is_not_taken(tiny_checkpoint: Path) -> None:
    with pytest.raises(ServeError, match="--keys FILE"):
        parse_engine_options(["--model", "x"], ["--api-key", "k"])
    os.environ["VLLM_API_KEY"] = "k"
    with pytest.raises(ServeError, match="VLLM_API_KEY"):
        prepare(options(tiny_checkpoint))


@pytest.mark.parametrize(
    "given",
    [("--max-num-queued-reqs", "3"), ("--max-num-queued-tokens", "3"), ("--trust-request-chat-template",)],
)
def test_options_that_would_answer_200_with_an_error_or_run_a_template(given: tuple[str, ...]) -> None:
    with pytest.raises(ServeError, match="not taken here"):
        parse_engine_options(["--model", "x"], given)


def test_answers_for_which_no_length_was_asked_end_at_the_bound() -> None:
    arguments = parse_engine_options([], ["--override-generation-config", '{"temperature": 0.5}'])
    cap_tokens(arguments, None)
    assert arguments.override_generation_config == {"temperature": 0.5}
    cap_tokens(arguments, 100)
    assert arguments.override_generation_config == {"temperature": 0.5, "max_new_tokens": 100}


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"queue_timeout_s": -1.0}, "--queue-timeout"),
        ({"max_running": 0}, "--max-running"),
        ({"max_n": 0}, "--max-n"),
    ],
)
def test_bounds_that_are_none_are_one_line(wrong: dict[str, float], option: str) -> None:
    with pytest.raises(ServeError, match=f"{option}: expected more than 0"):
        Bounds(**wrong)  # type: ignore[arg-type]
    assert Bounds(max_waiting=0, max_logprobs=0).max_waiting == 0
