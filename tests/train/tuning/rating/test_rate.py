"""`malmoi-train rate` against a real endpoint that misbehaves: nothing lost, nothing asked twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from malmoi.errors import CorpusError, MalmoiError, OutputError, RecipeError
from tests.support.scripted_rater import Reply, Script, ScriptedRater, always, first, scripted_rater
from train.tuning.rating.asking import Pace
from train.tuning.rating.command import Rating, run, summary, tell_estimate
from train.tuning.rating.filtering import Filtered
from train.tuning.rating.journal import FILE
from train.tuning.reading import read_dialogues

QUICK = Pace(first_wait_s=0.001, longest_wait_s=0.01)


def write_dialogues(file: Path, num: int) -> list[str]:
    """That many conversations; their questions."""
    questions = [f"질문 {number}" for number in range(num)]
    rows = [[{"role": "user", "content": q}, {"role": "assistant", "content": f"{q}의 답"}] for q in questions]
    file.write_text("".join(json.dumps({"messages": row, "id": n}) + "\n" for n, row in enumerate(rows)))
    return questions


def rating_of(file: Path, rater: ScriptedRater, **changes: Any) -> Rating:
    options: dict[str, Any] = {"pace": QUICK, "timeout_s": 5, **changes}
    return Rating(dialogues=(str(file),), endpoint=rater.url, model="m", key="k", **options)


def rows_of(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def questions_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["messages"][0]["content"] for row in rows]


def by_number(replies: Sequence[Reply]) -> Script:
    """The n-th conversation always gets the n-th reply, the first ones again when they are through."""
    return lambda question, number: replies[int(question.split()[1]) % len(replies)]


def test_each_dialogue_is_kept_dropped_or_unread(tmp_path: Path) -> None:
    questions = write_dialogues(tmp_path / "in.jsonl", 60)
    replies = [
        Reply("9\n좋습니다."),
        Reply("8.5점\n" + "정확한 설명 " * 50, finish_reason="length"),
        Reply("점수: 8\nThe answer is vague."),
        Reply("7-8\n애매합니다."),
        Reply(""),
        Reply("10/10\n완벽합니다."),
    ]
    out = tmp_path / "out"
    with scripted_rater(by_number(replies)) as rater:
        filtered = run(rating_of(tmp_path / "in.jsonl", rater), out, tmp_path / "work")
        assert rater.seen == dict.fromkeys(questions, 1)
        assert 1 < rater.most_at_once <= 8
    kept, dropped, unread = (rows_of(out, name) for name in ("kept", "dropped", "unread"))
    assert questions_of(kept) == [q for n, q in enumerate(questions) if n % 6 in (0, 1, 5)]
    assert questions_of(dropped) == [q for n, q in enumerate(questions) if n % 6 == 2]
    assert questions_of(unread) == [q for n, q in enumerate(questions) if n % 6 in (3, 4)]
    assert kept[0]["score"] == 9
    assert kept[0]["review"] == "9\n좋습니다."
    assert kept[0]["id"] == 0
    assert [row["unread"]["problem"] for row in unread[:2]] == ["no score", "empty"]
    assert unread[0]["unread"]["text"] == "7-8\n애매합니다."
    report = json.loads((out / "report.json").read_text())
    assert (report["kept"], report["dropped"], report["unread"]) == (30, 10, {"no score": 10, "empty": 10})
    assert (report["mean_before"], report["mean_after"]) == (
        pytest.approx(8.875),
        pytest.approx(9.1667, abs=1e-3),
    )
    assert report["scores"] == {"8": 10, "8.5": 10, "9": 10, "10": 10}
    assert (report["answers_cut_off"], report["answers_in_another_language"]) == (10, 10)
    assert report["requests"] == 60
    assert (out / "distribution.png").read_bytes().startswith(b"\x89PNG")
    assert "| after: 8.5 and more | 30 | 9.17 |" in (out / "report.md").read_text()
    assert summary(filtered) == "30 kept at 8.5 and more, 10 dropped, 20 unread"


def test_every_mischief_is_survived_and_every_request_counted(tmp_path: Path) -> None:
    questions = write_dialogues(tmp_path / "in.jsonl", 24)
    mischief = (
        Reply(status=429, headers={"retry-after-ms": "20"}),
        Reply(status=500),
        Reply(body="{"),
        Reply(hangs_up=True),
        Reply(promised_bytes=50),
        Reply(delay_s=2.0),
    )

    def script(question: str, number: int) -> Reply:
        turn = (int(question.split()[1]) + number) % len(mischief)
        return mischief[turn] if number < 3 else Reply()

    with scripted_rater(script) as rater:
        rating = rating_of(tmp_path / "in.jsonl", rater, timeout_s=1.5, max_requests=200, max_tokens=500_000)
        filtered = run(rating, tmp_path / "out", tmp_path / "work")
        assert [one.score for one in filtered.kept] == [9.0] * 24
        assert rater.seen == dict.fromkeys(questions, 4)
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["requests"] == rater.seen.total() == 96
        assert rater.num_billed <= report["tokens"] <= 500_000


def test_retry_after_is_waited_for_by_all(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 3)
    pause_s = 0.4
    with scripted_rater(first(Reply(status=429, headers={"retry-after": str(pause_s)}))) as rater:
        rating = rating_of(tmp_path / "in.jsonl", rater, pace=Pace(concurrency=3, first_wait_s=0.0))
        run(rating, tmp_path / "out", tmp_path / "work")
        times = sorted(rater.times_s)
    assert times[3] - times[0] >= pause_s
    assert len(times) == 6


def test_a_finished_run_costs_nothing_and_a_lower_threshold_neither(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 5)
    with scripted_rater(always(Reply("8\n보통"))) as rater:
        run(rating_of(tmp_path / "in.jsonl", rater), tmp_path / "out", tmp_path / "work")
        again = run(rating_of(tmp_path / "in.jsonl", rater, threshold=8), tmp_path / "2", tmp_path / "work")
        assert rater.seen.total() == 5
        assert len(again.kept) == 5
        run(rating_of(tmp_path / "in.jsonl", rater, language="en"), tmp_path / "3", tmp_path / "work")
        assert rater.seen.total() == 10, "another language is another prompt"


def test_the_same_dialogue_is_rated_once_and_stays_twice(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 3)
    text = (tmp_path / "in.jsonl").read_text()
    (tmp_path / "in.jsonl").write_text(text + text)
    with scripted_rater(always(Reply())) as rater:
        filtered = run(rating_of(tmp_path / "in.jsonl", rater), tmp_path / "out", tmp_path / "work")
        assert rater.seen.total() == 3
        assert len(filtered.kept) == 6


def test_what_is_kept_can_be_rated_again(tmp_path: Path) -> None:
    """Scores and reviews are read back as fields that travel along."""
    write_dialogues(tmp_path / "in.jsonl", 2)
    with scripted_rater(always(Reply())) as rater:
        run(rating_of(tmp_path / "in.jsonl", rater), tmp_path / "out", tmp_path / "work")
        again = run(rating_of(tmp_path / "out" / "kept.jsonl", rater), tmp_path / "2", tmp_path / "work")
        assert rater.seen.total() == 2
    assert len(again.kept) == 2
    assert (tmp_path / "2" / "kept.jsonl").read_text() == (tmp_path / "out" / "kept.jsonl").read_text()


def test_a_rating_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    """Where there is no new score, either: the old one would be taken for it."""
    write_dialogues(tmp_path / "in.jsonl", 3)
    rows = [json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    rated = [{**row, "score": 9.5, "review": "an earlier one"} for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    replies = [Reply("9\n좋음"), Reply("8\n보통"), Reply("모르겠음")]
    with scripted_rater(by_number(replies)) as rater:
        run(rating_of(tmp_path / "in.jsonl", rater), tmp_path / "out", tmp_path / "work")
    kept, dropped, unread = (rows_of(tmp_path / "out", name) for name in ("kept", "dropped", "unread"))
    assert [(row["score"], row["review"]) for row in (*kept, *dropped)] == [(9, "9\n좋음"), (8, "8\n보통")]
    assert [sorted(row) for row in unread] == [["id", "messages", "unread"]]
    assert all(
        "score" not in example.extra
        for example in read_dialogues([str(tmp_path / "out" / "unread.jsonl")]).examples
    )


def test_a_file_may_be_named_in_any_bytes(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff.jsonl")
    write_dialogues(file, 1)
    with scripted_rater(always(Reply(""))) as rater:
        run(rating_of(file, rater), tmp_path / "out", tmp_path / "work")
    assert rows_of(tmp_path / "out", "unread")[0]["unread"]["read_from"] == f"{file}:1"


def test_given_up_dialogues_are_listed_and_asked_for_again(tmp_path: Path) -> None:
    questions = write_dialogues(tmp_path / "in.jsonl", 10)
    broken = {questions[4]}

    def script(question: str, number: int) -> Reply:
        return Reply(status=500) if question in broken else Reply()

    with scripted_rater(script) as rater:
        rating = rating_of(tmp_path / "in.jsonl", rater)
        filtered = run(rating, tmp_path / "out", tmp_path / "work")
        assert "1 without an answer: --overwrite" in summary(filtered)
        assert [row["unread"]["problem"] for row in rows_of(tmp_path / "out", "unread")] == ["no answer"]
        assert rater.seen[questions[4]] == 8
        broken.clear()
        filtered = run(rating, tmp_path / "out", tmp_path / "work", overwrite=True)
        assert len(filtered.kept) == 10
        assert rater.seen.total() == 9 + 8 + 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(status=401), "OPENAI_API_KEY"),
        (Reply(status=404), "--model"),
        (Reply(status=400), "scripted 400"),
        (Reply(status=500), "none to 8 prompts in a row"),
        (Reply(status=429, headers={"retry-after": "86400"}), "86,400 s"),
    ],
)
def test_what_cannot_go_on_stops_with_one_line_and_no_result(
    tmp_path: Path, reply: Reply, expected: str
) -> None:
    write_dialogues(tmp_path / "in.jsonl", 300)
    with scripted_rater(always(reply)) as rater:
        with pytest.raises(RecipeError, match=expected) as stopped:
            run(rating_of(tmp_path / "in.jsonl", rater), tmp_path / "out", tmp_path / "work")
        assert rater.seen.total() <= 8 * 8 * 2
    assert "0 of 300 prompts answered, 300 left" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "out").exists()


def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 1)
    with scripted_rater(always(Reply())) as rater:
        pass
    with pytest.raises(RecipeError, match="no connection"):
        run(rating_of(tmp_path / "in.jsonl", rater), tmp_path / "out", tmp_path / "work")


def test_a_budget_of_tokens_is_held_and_raised(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 30)
    with scripted_rater(always(Reply())) as rater:
        with pytest.raises(RecipeError, match=r"--max-tokens: .* 30 prompts answered"):
            rating = rating_of(tmp_path / "in.jsonl", rater, max_tokens=6000)
            run(rating, tmp_path / "out", tmp_path / "work")
        num_first = rater.seen.total()
        assert 0 < num_first < 30
        assert rater.num_billed <= 6000
        filtered = run(
            rating_of(tmp_path / "in.jsonl", rater, max_tokens=50_000), tmp_path / "out", tmp_path / "work"
        )
        assert rater.seen.total() == len(filtered.kept) == 30


def test_the_estimate_sends_and_writes_nothing(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 7)
    with scripted_rater(always(Reply())) as rater:
        rating = rating_of(tmp_path / "in.jsonl", rater, max_requests=5, max_tokens=10**9)
        told = tell_estimate(rating, tmp_path / "work")
        assert rater.seen.total() == 0
        assert not (tmp_path / "work").exists()
        assert "7 requests" in told
        assert "1,792 of answers" in told
        assert "--max-requests 5 may stop it before the end: 7 may be needed" in told
        assert "--max-tokens" not in told
        with pytest.raises(RecipeError):
            run(rating, tmp_path / "out", tmp_path / "work")
        assert "spent so far: 5 requests" in tell_estimate(rating, tmp_path / "work")


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"endpoint": "localhost:8000/v1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http://[::1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http://x:99999/v1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http://x:0/v1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http:///v1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http://\x7f/v1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http://x/\x7f/v1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http://x/\udcff/v1"}, RecipeError, "--endpoint"),
        ({"endpoint": "http://-☃-/v1"}, RecipeError, "--endpoint"),
        ({"model": ""}, RecipeError, "--model"),
        ({"model": " \n"}, RecipeError, "--model"),
        ({"model": "m\udcff"}, RecipeError, "--model"),
        ({"threshold": 11.0}, RecipeError, "--threshold"),
        ({"threshold": float("nan")}, RecipeError, "--threshold"),
        ({"max_requests": -1}, RecipeError, "--max-requests"),
        ({"max_tokens": -1}, RecipeError, "--max-tokens"),
        ({"timeout_s": 0.0}, RecipeError, "--timeout"),
        ({"timeout_s": float("nan")}, RecipeError, "--timeout"),
        ({"timeout_s": float("inf")}, RecipeError, "--timeout"),
        ({"tokenizer": Path("/nowhere")}, RecipeError, "tokenizer.json"),
        ({"dialogues": ("/nowhere.jsonl",)}, CorpusError, "nowhere"),
    ],
)
def test_what_cannot_be_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[MalmoiError], expected: str
) -> None:
    write_dialogues(tmp_path / "in.jsonl", 1)
    options = {
        "dialogues": (str(tmp_path / "in.jsonl"),),
        "endpoint": "http://127.0.0.1:9/v1",
        "model": "m",
        "key": "k",
    }
    with pytest.raises(error, match=expected) as refused:
        run(Rating(**{**options, **changes}), tmp_path / "out", tmp_path / "work")
    assert "\n" not in str(refused.value)


def test_only_bad_rows_are_nothing_to_rate(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"messages": []}\n')
    with scripted_rater(always(Reply())) as rater, pytest.raises(CorpusError, match="none, 1 bad rows"):
        rating = rating_of(tmp_path / "in.jsonl", rater, on_bad_row="skip")
        run(rating, tmp_path / "out", tmp_path / "work")


def test_a_result_that_exists_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 1)
    (tmp_path / "out").mkdir()
    with scripted_rater(always(Reply())) as rater:
        with pytest.raises(OutputError, match="--overwrite"):
            run(rating_of(tmp_path / "in.jsonl", rater), tmp_path / "out", tmp_path / "work")
        assert rater.seen.total() == 0


def command(tmp_path: Path, rater: ScriptedRater, *options: str) -> "subprocess.Popen[str]":
    arguments = ["--dialogues", str(tmp_path / "in.jsonl"), "--endpoint", rater.url, "--model", "m"]
    environment = {**os.environ, "OPENAI_API_KEY": "sk-very-secret"}
    return subprocess.Popen(
        [sys.executable, "-m", "train", "rate", *arguments, "--out", str(tmp_path / "out"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def answered_in(work: Path) -> Counter[str]:
    """By key, answers on the disk: whole lines only."""
    lines = (work / FILE).read_bytes().split(b"\n")[:-1]
    records = [json.loads(line) for line in lines]
    keys = {record["number"]: record["key"] for record in records if record["event"] == "sent"}
    return Counter(keys[record["number"]] for record in records if record["event"] == "answered")


def killed_after(process: "subprocess.Popen[str]", rater: ScriptedRater, num_requests: int) -> None:
    deadline = time.monotonic() + 60
    while rater.seen.total() < num_requests:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_kill_9_half_way_repeats_nothing_that_is_answered_and_keeps_the_budget(tmp_path: Path) -> None:
    num, num_at_once, budget = 80, 4, 60
    questions = write_dialogues(tmp_path / "in.jsonl", num)
    with scripted_rater(lambda question, number: Reply(delay_s=0.02)) as rater:
        options = ("--concurrency", str(num_at_once))
        with command(tmp_path, rater, *options) as process:
            killed_after(process, rater, num // 2)
        before, done = Counter(rater.seen), answered_in(tmp_path / "out.work")
        assert 0 < done.total() < num
        assert not (tmp_path / "out").exists()

        with command(tmp_path, rater, *options, "--max-requests", str(budget)) as process:
            _, told = process.communicate(timeout=60)
        assert process.returncode == 2
        assert f"{done.total()} are answered" in told
        assert before.total() < rater.seen.total() <= budget, "what the killed run sent counts"

        with command(tmp_path, rater, *options, "--max-requests", str(num + num_at_once)) as process:
            output, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        repeated = [question for question in questions if rater.seen[question] > 1]
        assert len(repeated) == before.total() - done.total() <= num_at_once, "only those on their way"
        assert rater.seen.total() == num + len(repeated)
        assert set(answered_in(tmp_path / "out.work").values()) == {1}
    assert questions_of(rows_of(tmp_path / "out", "kept")) == questions
    assert output.startswith(f"{tmp_path / 'out'}: 80 kept at 8.5 and more")
    assert "sk-very-secret" not in output + told + (tmp_path / "out.work" / FILE).read_text()


def test_the_command_stops_at_the_budget_with_exit_code_2_and_tells_what_is_left(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", 10)
    with scripted_rater(always(Reply())) as rater:
        with command(tmp_path, rater, "--max-requests", "4") as process:
            output, told = process.communicate(timeout=60)
        assert rater.seen.total() == 4
        assert rater.keys == {"Bearer sk-very-secret"}
    assert process.returncode == 2
    assert output == ""
    line = told.splitlines()[-1]
    assert line.startswith("error: --max-requests: ")
    assert "4 of 10 prompts answered, 6 left" in line
    assert "give a larger --max-requests; the same command goes on" in line


def test_nothing_rated_gives_an_empty_result(tmp_path: Path) -> None:
    filtered = Filtered(threshold=8.5)
    assert filtered.rated == []
    assert summary(filtered) == "0 kept at 8.5 and more, 0 dropped, 0 unread"
