"""A judge at an OpenAI-compatible address, which here is a real server on loopback."""

import http.server
import json
import threading
import time
from collections.abc import Iterator

import pytest

from instructgpt.errors import UserError
from instructgpt.evals.judges.chat import ChatJudge, Endpoint
from instructgpt.evals.preference import summarise

pytest.importorskip("openai")

RECORDS = [
    {"id": f"p{i}", "prompt": f"Question {i}?", "history": ["Hello", "Good day"]}
    for i in range(4)
]
ANSWERS = {
    "sft": ["bad", "good", "same", "bad"],
    "ppo": ["good", "bad", "same", "good"],
}
RATE = (1 + 0 + 0.5 + 1) / 4  # of PPO, as the server prefers "good"


class Server(http.server.ThreadingHTTPServer):
    """Prefers the answer "good", or does what a test wants in `misbehave`."""

    misbehave = staticmethod(lambda number: None)
    asked: list[dict]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        what = self.server.misbehave(len(self.server.asked))
        if what == "late":
            time.sleep(1.5)
            what = None
        status, text = (200, what) if isinstance(what, str) else (what or 200, None)
        if text is None:
            text = json.dumps(_reply(_verdict(body["messages"][-1]["content"])))
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass  # the client had no patience

    def log_message(self, *args):
        pass


def _verdict(question: str) -> str:
    if "Rating:" in question:
        return "Rating: 6" if "Answer:\ngood" in question else "Rating: 2"
    first = question.index("Answer A:\ngood") if "Answer A:\ngood" in question else -1
    second = "Answer B:\ngood" in question
    return f"I think so. Verdict: {'A' if first >= 0 else 'B' if second else 'tie'}"


def _reply(text: str) -> dict:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), _Handler)
    found.asked = []
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def make(server, tmp_path, lines=None, **how) -> ChatJudge:
    address = f"http://127.0.0.1:{server.server_port}/v1"
    how = {"retries": 1, "timeout": 20.0, "workers": 2, **how}
    rate = how.pop("rate", False)
    return ChatJudge(
        Endpoint(address, "judge", **how),
        baseline="sft",
        kept=tmp_path / "replies.jsonl",
        rate=rate,
        log=(lines if lines is not None else []).append,
    )


def rate_of(found) -> float:
    judged = summarise(found, RECORDS, ANSWERS, baseline="sft")
    return judged.models["ppo"].numbers["win_rate"][0]


def test_each_pair_is_asked_in_both_orders_and_once_only(server, tmp_path):
    lines: list[str] = []
    how = {"rate": True, "workers": 1, "price": (1.0, 10.0)}
    found = make(server, tmp_path, lines, **how).judge(RECORDS, ANSWERS)
    pairs = [one for one in found if one.rank is not None]
    assert {one.sheet for one in pairs} == {"ppo, sft", "sft, ppo"}
    assert rate_of(found) == RATE
    assert [one.rank for one in pairs if one.id == "p0" and one.model == "ppo"] == [
        1,
        1,
    ]
    likert = {(one.model, one.id): one.likert for one in found if one.likert}
    assert likert["ppo", "p0"] == 6 and likert["sft", "p0"] == 2
    text = server.asked[0]["messages"][-1]["content"]
    assert "Hello" in text and "Assistant:\nGood day" in text
    # Three pairs in two orders, as the third's answers are the same; and each answer
    # alone, where "same" is one question.
    assert len(server.asked) == 3 * 2 + 7
    assert "13 new replies" in lines[0] and "$0.00" in lines[0]
    again = make(server, tmp_path, lines, rate=True).judge(RECORDS, ANSWERS)
    assert again == found and len(server.asked) == 13
    assert "0 new replies, 13 in all" in lines[1]


def test_a_preference_for_what_comes_first_is_no_win(server, tmp_path):
    server.misbehave = lambda number: json.dumps(_reply("Verdict: A"))
    found = make(server, tmp_path).judge(RECORDS, ANSWERS)
    assert rate_of(found) == 0.5


@pytest.mark.parametrize("fault", [500, "late", "not JSON", "null", '{"choices": 3}'])
def test_a_judge_that_fails_loses_no_finished_row(server, tmp_path, fault):
    """It fails from the third request on, and is well again at the next start."""
    server.misbehave = lambda number: fault if number > 2 else None
    judge = make(server, tmp_path, workers=1, timeout=0.5, retries=0)
    with pytest.raises(UserError) as error:
        judge.judge(RECORDS, ANSWERS)
    assert "\n" not in str(error.value)
    kept = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert len(kept) == 2
    assert "127.0.0.1" in str(error.value) and "2 replies are kept in" in str(
        error.value
    )
    # A kill may leave half a line.
    with (tmp_path / "replies.jsonl").open("a") as file:
        file.write('{"key": "half')
    server.misbehave = lambda number: None
    before = len(server.asked)
    found = make(server, tmp_path).judge(RECORDS, ANSWERS)
    assert len(server.asked) == before + 4
    assert rate_of(found) == RATE
    assert make(server, tmp_path).judge(RECORDS, ANSWERS) == found


def test_a_reply_that_lies_in_format_is_asked_for_again(server, tmp_path):
    odd = json.dumps(_reply("Both are nice."))
    server.misbehave = lambda number: odd if number == 1 else None
    lines: list[str] = []
    found = make(server, tmp_path, lines, workers=1).judge(RECORDS, ANSWERS)
    assert len(server.asked) == 7 and server.asked[1]["temperature"] == 1.0
    assert rate_of(found) == RATE
    assert "0 questions without a verdict" in lines[0]


def test_a_pair_that_is_judged_in_one_order_only_is_left_out(server, tmp_path):
    """What it says may be no more than which answer came first."""
    no = json.dumps(_reply("I cannot say."))
    server.misbehave = lambda number: no if number == 2 else None
    lines: list[str] = []
    found = make(server, tmp_path, lines, workers=1, retries=0).judge(RECORDS, ANSWERS)
    assert {one.id for one in found} == {"p1", "p2", "p3"}
    assert "1 pairs with one verdict only are left out" in lines[1]
    # More than half of them: no judge at all.
    server.misbehave = lambda number: no
    with pytest.raises(UserError, match="6 of 6 replies of judge end in no verdict"):
        make(server, tmp_path / "other", workers=1, retries=0).judge(RECORDS, ANSWERS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Verdict: A", (1, 2)),
        ("**Verdict:** B.", (2, 1)),
        ("Verdict: A tie.", (1, 1)),
        ("Verdict: tie", (1, 1)),
        ("Verdict: A or B", None),
        ("Verdict: A/B", None),
        ("A is better", None),
    ],
)
def test_a_verdict_is_the_end_of_its_line(server, tmp_path, text, says):
    server.misbehave = lambda number: json.dumps(_reply(text))
    judge = make(server, tmp_path, workers=1, retries=0)
    records, answers = RECORDS[:1], {name: texts[:1] for name, texts in ANSWERS.items()}
    if says is None:
        with pytest.raises(UserError, match="2 of 2 replies"):
            judge.judge(records, answers)
        return
    found = judge.judge(records, answers)
    assert tuple(one.rank for one in found if one.sheet == "ppo, sft") == says
