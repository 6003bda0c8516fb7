import os
import time
from math import inf, isnan

import pytest

from benchmarks import processes
from benchmarks.serving import report, runs, saturation
from benchmarks.serving.servers import Contender, Name, with_port


def contender(name: Name, *command: str) -> Contender:
    return Contender(name=name, command=command, environment={}, model="m")


def test_order_alternates() -> None:
    pair = (contender("stock"), contender("malmoi"))
    order = [(repeat, server.name) for repeat, server in runs.in_order(pair, repeats=3)]
    names = ["stock", "malmoi", "malmoi", "stock", "stock", "malmoi"]
    assert order == list(zip([0, 0, 1, 1, 2, 2], names, strict=True))


def test_port_stands_before_the_engine_options() -> None:
    command = ("malmoi-serve", "DIR", "--", "--max-model-len", "8")
    assert with_port(command, 5) == ["malmoi-serve", "DIR", "--port", "5", "--", "--max-model-len", "8"]
    assert with_port(("vllm", "serve", "DIR"), 5) == ["vllm", "serve", "DIR", "--port", "5"]


def test_repeats_are_compared_one_by_one() -> None:
    assert report.compare([10.0, 20.0], [20.0, 20.0], "ratio") == [2.0, 1.0]
    assert report.compare([10.0, 20.0], [9.0, 25.0], "difference") == [-1.0, 5.0]


def test_nothing_of_stock_can_be_compared_with() -> None:
    ratios = report.compare([0.0, 2.0, 0.0], [1.0, 3.0, 0.0], "ratio")
    assert ratios[:2] == [inf, 1.5]
    assert isnan(ratios[2])


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.04, 1.05, 1.20], "met (2 of 3 repeats)"),
        ([1.04, 1.06, 1.20], "**missed** (1 of 3 repeats)"),
    ],
)
def test_the_median_decides(ratios: list[float], expected: str) -> None:
    assert report.verdict(ratios, report.WITHIN_5_PERCENT) == expected


def test_cpu_time_of_this_process_is_what_the_clock_says() -> None:
    with processes.CpuRecorder(os.getpid()) as recorder:
        start = time.perf_counter()
        used = time.process_time()
        while time.process_time() < used + 0.3:
            pass
        end = time.perf_counter()
    api_s, _ = recorder.spent_s(start, end)
    assert api_s == pytest.approx(time.process_time() - used, abs=0.06)
    assert processes.resident_bytes([os.getpid()]) > 1 << 20


def test_memory_is_seen_while_it_is_held() -> None:
    with processes.MemoryRecorder(os.getpid(), interval_s=0.02) as memory:
        held = bytearray(b"x") * (64 << 20)
        time.sleep(0.2)
    assert memory.peak_bytes() >= len(held)
    assert 0 < memory.last_minute_bytes() <= memory.peak_bytes()


def test_a_process_that_is_gone_counts_nothing() -> None:
    gone = 2**22 + 1  # beyond the kernel's greatest pid
    assert processes.cpu_s([gone]) == processes.resident_bytes([gone]) == 0


def test_answers_that_come_late_or_never_are_not_good() -> None:
    found = {
        "ttfts": [0.5, 2.5, 0.5, 0.0],  # good, late at first, slow after it, refused
        "latencies": [1.4, 3.4, 5.5, 0.0],
        "output_lens": [10, 10, 10, 0],
        "duration": 4.0,
        "p50_ttft_ms": 500.0,
        "p99_ttft_ms": 2500.0,
    }
    flood = saturation.read(0, "malmoi", 2.0, 4, found)
    assert (flood.num_answered, flood.num_good) == (3, 1)
    assert (flood.answered_share, flood.good_share, flood.goodput_per_s) == (0.75, 0.25, 0.25)
