"""Rankings of several labelers as one."""

from instructgpt.stages.label import mean_ranking


def row(ranks, labeler):
    return {"id": "a", "responses": ["x", "y", "z"], "ranks": ranks, "labeler": labeler}


def test_mean_ranking_orders_by_mean_rank_with_ties():
    ranked = [row([1, 2, 3], "one"), row([2, 1, 3], "two")]
    assert mean_ranking(ranked) == row([1, 1, 2], "one+two")
    ranked = [row([1, 3, 2], "one"), row([1, 2, 1], "two"), row([3, 1, 1], "three")]
    assert mean_ranking(ranked)["ranks"] == [2, 3, 1]


def test_one_labelers_ranking_stays():
    assert mean_ranking([row([2, 1, 2], "one")]) == row([2, 1, 2], "one")
