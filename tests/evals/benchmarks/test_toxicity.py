"""The local toxicity scorer, and completions that it scores."""

import numpy as np
import pytest

from instructgpt import toxicity as command
from instructgpt.errors import UserError
from instructgpt.evals.benchmarks.toxicity import open_scorer, with_toxicity
from instructgpt.evals.benchmarks.toxicity_scorer import (
    ToxicityScorer,
    labelled_tweets,
    published_scores,
)
from instructgpt.evals.interface import Results
from tests.shared_data import shared_data

BAD, GOOD = ("you nasty fool", "a nasty fool he is"), ("what a day", "the sun is out")
LABELLED = [(text, 1.0) for text in BAD * 20] + [(text, 0.0) for text in GOOD * 20]
PUBLISHED = [
    (f"prompt {n}", f"{text} {n}", score)
    for n in range(12)
    for text, score in ((BAD[n % 2], 0.9), (GOOD[n % 2], 0.1))
]


def half(texts: list[str]) -> list[float]:
    """A scorer of one's own."""
    return [0.5] * len(texts)


def too_high(texts: list[str]) -> list[float]:
    return [1.5] * len(texts)


def test_toxic_words_raise_the_score_to_the_published_scale():
    scorer, report = ToxicityScorer.train(LABELLED, PUBLISHED)
    assert scorer([*BAD, *GOOD, ""]) == pytest.approx([0.9, 0.9, 0.1, 0.1, 0.1])
    assert 0.1 < scorer(["a fool"])[0] < 0.9
    assert scorer([]) == []
    assert report.auc == 1.0
    assert report.rank_correlation > 0.8
    assert report.mean_difference < 0.01
    assert (report.texts, report.prompts) == (12, 6)


def test_the_halves_share_no_prompt_and_the_seed_draws_them():
    """With scores that contradict the words, the other half stays unexplained."""
    rng = np.random.default_rng(0)
    # Every prompt has one score: with it known, the continuations' would be, too.
    noise = {prompt: float(rng.random()) for prompt, _, _ in PUBLISHED}
    rows = [(p, f"{t} {p}", noise[p]) for p, t, _ in PUBLISHED for _ in range(3)]
    reports = [ToxicityScorer.train(LABELLED, rows, seed=s)[1] for s in (0, 1)]
    assert reports[0] != reports[1]
    for report in reports:
        assert (report.texts, report.prompts) == (36, 6)
        assert report.mean_difference > 0.1


def test_the_command_trains_from_tables_and_prints_the_agreement(tmp_path, capsys):
    tweets, published = tmp_path / "tweets.csv", tmp_path / "published.csv"
    lines = [f"3,{3 * int(y)},0,{text}" for text, y in LABELLED]
    head = "count,hate_speech,offensive_language,tweet"
    tweets.write_text("\n".join([head, *lines]))
    lines = [f"{p},{t},{y}" for p, t, y in PUBLISHED]
    published.write_text("\n".join(["context,sample,toxicity", *lines]))
    out = tmp_path / "scorer.joblib"
    command.main([str(tweets), str(published), f"--out={out}"])
    assert "12 texts after 6 prompts" in capsys.readouterr().out
    scores = open_scorer(str(out))
    assert scores([BAD[0], GOOD[0]]) == pytest.approx([0.9, 0.1])
    published.write_text("context,sample\na,b\n")
    with pytest.raises(SystemExit, match=r"published\.csv: line 2: give the columns"):
        command.main([str(tweets), str(published), f"--out={out}"])


def test_rows_that_are_not_scores_are_named_by_their_line():
    with pytest.raises(UserError, match=r"line 3: .*toxicity of 1\.2"):
        rows = [dict(context="a", sample="b", toxicity=x) for x in ("0.1", "1.2")]
        published_scores(rows)
    with pytest.raises(UserError, match=r"line 2: .*offensive_language"):
        labelled_tweets([dict(tweet="a", count="3", hate_speech="0")])
    with pytest.raises(UserError, match="a text is missing"):
        labelled_tweets(
            [dict(tweet=None, count="3", hate_speech="0", offensive_language="0")]
        )
    with pytest.raises(UserError, match="no word in common"):
        ToxicityScorer.train([("a b", 1.0), ("c d", 0.0)], PUBLISHED)
    with pytest.raises(UserError, match="all of one class"):
        ToxicityScorer.train([], PUBLISHED)
    with pytest.raises(UserError, match="all of one class"):
        ToxicityScorer.train([("a", 1.0), ("b", 1.0)], PUBLISHED)


def test_completions_of_toxicity_tasks_are_scored():
    rows = [
        {"task": "instructgpt_toxicity", "response": "a", "metrics": {"words": 1.0}},
        {"task": "instructgpt_rte", "response": [[-1, True]], "metrics": {"acc": 1.0}},
    ]
    results = Results({"instructgpt_rte/acc": 1.0}, rows)
    scores = open_scorer(f"{__name__}:half")
    found = with_toxicity(results, scores)
    assert found.numbers["instructgpt_toxicity/toxicity"][0] == 0.5
    assert found.rows[0]["metrics"] == {"words": 1.0, "toxicity": 0.5}
    assert found.rows[1]["metrics"] == {"acc": 1.0}
    assert with_toxicity(results, open_scorer("")) is results
    with pytest.raises(UserError, match=r"from 0 to 1 for each"):
        with_toxicity(results, open_scorer(f"{__name__}:too_high"))


def test_a_file_that_is_no_scorer_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no toxicity scorer .* makes one"):
        open_scorer(str(tmp_path / "none.joblib"))


def test_it_agrees_somewhat_with_the_published_scores():
    """Prints the agreement on continuations by the paper's models."""
    from tests.evals.benchmarks.shared_sets import published, read_table

    tweets = shared_data("davidson_toxicity") / "labeled_data.csv.gz"
    _, report = ToxicityScorer.train(
        labelled_tweets(read_table(tweets)),
        published_scores(published("rtp_calibration")),
    )
    print(f"\n{report}")
    assert report.rank_correlation > 0.3
    assert report.auc > 0.65
