"""The desk on Label Studio: what it sends, takes and refuses, whatever fails."""

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling import api
from instructgpt.labelling.interface import PAGES, Rating, Refused, Task, Work
from instructgpt.labelling.pages import to_result
from instructgpt.labelling.studio import StudioDesk
from tests.labelling.fake_studio import HANG_UP, serving


@pytest.fixture
def studio(monkeypatch):
    monkeypatch.setattr(api, "_FIRST", 0.5)
    monkeypatch.setattr(api, "_LATER", 10.0)
    with serving() as studio:
        yield studio


def desk_at(studio, title="mini"):
    return StudioDesk(studio.seat(), title=title, sleep=lambda _: None)


@pytest.fixture
def desk(studio):
    desk = desk_at(studio)
    desk.setup()
    return desk


def rankings(number, answers=4):
    texts = tuple(f"answer {j}" for j in range(answers))
    return [Task(f"k{i}", "ranking", (), f"prompt {i}", texts) for i in range(number)]


def by_key(tasks):
    return {task.key: task for task in tasks}


def keys(studio):
    return [task["data"]["key"] for task in studio.tasks.values()]


def id_of(studio, key):
    (found,) = (n for n, task in studio.tasks.items() if task["data"].get("key") == key)
    return found


def test_setup_makes_four_projects_once(studio):
    urls = desk_at(studio).setup()
    assert desk_at(studio).setup() == urls
    assert tuple(urls) == PAGES
    assert [x["title"] for x in studio.projects.values()] == [
        *("mini: demonstration", "mini: rating", "mini: ranking", "mini: final"),
    ]
    assert all(url.startswith(f"{studio.address}/projects/") for url in urls.values())
    assert all(x["show_instruction"] for x in studio.projects.values())


def test_setup_lays_out_projects_of_another_version_anew(studio, desk):
    first = min(studio.projects)
    good = studio.projects[first]["label_config"]
    studio.projects[first]["label_config"] = "<View/>"
    desk_at(studio).setup()
    assert studio.projects[first]["label_config"] == good


def test_long_titles_are_cut_and_stay_different(studio):
    for end in "ab":
        StudioDesk(
            studio.seat(), title="a very long name of a workdir " * 3 + end
        ).setup()
    titles = [project["title"] for project in studio.projects.values()]
    assert len(set(titles)) == 8
    assert max(map(len, titles)) == 50


def test_tasks_are_put_once(studio, desk):
    tasks = rankings(3)
    desk.put("ranking", tasks[:2])
    desk.put("ranking", tasks)
    desk_at(studio).put("ranking", tasks)
    desk.put("ranking", [])
    assert keys(studio) == ["k0", "k1", "k2"]


def test_ranks_on_offer_grow_with_the_answers(studio, desk):
    def ranks():
        (found,) = (p for p in studio.projects.values() if "ranking" in p["title"])
        return found["label_config"].count("<Bucket ")

    assert ranks() == 4
    desk.put("ranking", rankings(1, 6))
    assert ranks() == 6
    desk.put("ranking", rankings(1, 6))
    desk.put("ranking", [task._replace(key="x") for task in rankings(1, 4)])
    assert ranks() == 6
    desk_at(studio).setup()
    assert ranks() == 6


@pytest.mark.parametrize("fault", [500, 429, 502, HANG_UP])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_nothing_is_lost_or_doubled_if_calls_fail(studio, desk, fault, number):
    tasks = rankings(250)
    good = [None, None]
    studio.faults = {
        "POST /import": [*good[: number - 1], fault, fault],
        "GET /api/tasks/": [None, fault],
        "POST /annotations/": [None, fault, None, fault, fault],
        "DELETE /api/tasks/": [fault],
    }
    desk.put("ranking", tasks)
    assert sorted(keys(studio)) == sorted(by_key(tasks))
    given = [Work(f"k{i}", ranks=(1, 2, 2, 3), seconds=float(i)) for i in range(5)]
    for work in given:
        desk.submit("ranking", work.key, work)
    found = list(desk.finished("ranking", by_key(tasks)))
    assert [work._replace(when="") for work in found] == given
    assert sum(len(task["annotations"]) for task in studio.tasks.values()) == 5


def test_a_copy_left_by_an_import_that_seemed_to_fail_is_dropped(studio, desk):
    tasks = rankings(2)
    desk.put("ranking", tasks)
    task = studio.tasks[id_of(studio, "k0")]
    copy = studio.add_task(task["project"], task["data"])
    studio.annotate(copy, {"result": [], "was_cancelled": True, "lead_time": 1.0})
    desk.put("ranking", tasks)
    assert keys(studio) == ["k1", "k0"]
    assert [work.key for work in desk.finished("ranking", by_key(tasks))] == ["k0"]


def test_finished_takes_what_is_right_and_names_the_rest(studio, desk):
    tasks = rankings(7)
    desk.put("ranking", tasks)
    done = {"was_cancelled": False, "lead_time": 2.0}
    good = to_result(Work("", ranks=(1, 1, 2, 3)))
    project = studio.tasks[id_of(studio, "k0")]["project"]
    for key in ("k0", "k2", "k3", "k4"):
        studio.annotate(id_of(studio, key), {**done, "result": good})
    studio.annotate(id_of(studio, "k1"), {"was_cancelled": True, "lead_time": 1.0})
    studio.tasks[id_of(studio, "k2")]["data"]["answers"][0]["body"] = "edited"
    strange = studio.add_task(project, {"text": "somebody else's"})
    studio.annotate(strange, {**done, "result": good})
    studio.annotate(id_of(studio, "k5"), {**done, "result": good}, user=99)
    studio.annotate(id_of(studio, "k3"), {**done, "result": good[:0]}, user=99)
    studio.annotate(id_of(studio, "k6"), {**done, "result": "edited"})
    found = list(desk.finished("ranking", by_key(tasks)))
    works = [one for one in found if isinstance(one, Work)]
    assert [(one.key, one.skipped, one.ranks) for one in works] == [
        ("k0", False, (1, 1, 2, 3)),
        ("k1", True, ()),
        ("k3", False, (1, 1, 2, 3)),
        ("k4", False, (1, 1, 2, 3)),
    ]
    refused = [one for one in found if isinstance(one, Refused)]
    assert all(f"project {project}, task " in one.where for one in refused)
    reasons = {one.where.partition("(")[2]: one.reason for one in refused}
    assert reasons == {
        "k2)": "what is shown is not what was sent",
        "k3)": "answered by another account, 99",
        "k5)": "answered by another account, 99",
        "k6)": "its result is 'edited', not a list",
        "": "a task that was not sent from here",
    }


def test_the_last_answer_counts_and_an_answer_more_than_a_skip(studio, desk):
    tasks = rankings(2)
    desk.put("ranking", tasks)
    for key, many in (("k0", [(1, 2, 3, 4), (4, 3, 2, 1)]), ("k1", [(1, 1, 1, 1), ()])):
        for ranks in many:
            result = to_result(Work(key, ranks=ranks))
            body = {"was_cancelled": not ranks, "lead_time": 1.0, "result": result}
            studio.annotate(id_of(studio, key), body)
    found = list(desk.finished("ranking", by_key(tasks)))
    assert [one.ranks for one in found] == [(4, 3, 2, 1), (1, 1, 1, 1)]


def test_a_rating_and_a_skip_are_handed_in_as_the_pages_do_it(studio, desk):
    tasks = [Task(f"r{i}", "rating", (), "p", ("x",)) for i in range(2)]
    desk.put("rating", tasks)
    works = [
        Work(
            "r0", ratings=(Rating(6, {"hallucination": True}),), note="n", seconds=4.0
        ),
        Work("r1", skipped=True, seconds=1.5),
    ]
    for work in works:
        desk.submit("rating", work.key, work)
        desk.submit("rating", work.key, work)
    found = list(desk.finished("rating", by_key(tasks)))
    assert [one._replace(when="") for one in found] == works


def test_only_a_task_that_lies_there_is_answered(studio, desk):
    with pytest.raises(UserError, match=r"'k9' does not lie at the desk of 'ann'"):
        desk.submit("ranking", "k9", Work("k9", ranks=(1, 2)))


def test_a_project_full_of_other_tasks_is_refused_in_one_line(studio, desk):
    project = max(studio.projects)
    studio.add_task(project, {"text": "somebody else's"})
    task = Task("f", "final", (), "p", ("x", "y"))
    says = rf"project {project} \(mini: final\) is full of another project's tasks"
    with pytest.raises(UserError, match=says):
        desk.put("final", [task])
    with pytest.raises(UserError, match=says):
        list(desk.finished("final", {"f": task}))
    assert len(studio.tasks) == 1


def test_a_task_of_the_same_key_with_other_contents_is_refused(studio, desk):
    desk.put("ranking", rankings(1))
    with pytest.raises(UserError, match=r"has a task 'k0' with other contents"):
        desk.put("ranking", [rankings(1)[0]._replace(prompt="another")])


def test_two_tasks_of_one_key_are_refused(desk):
    with pytest.raises(UserError, match=r"two tasks have one key"):
        desk.put("ranking", rankings(1) * 2)


def test_a_project_of_the_same_title_that_is_not_ours_is_left_alone(studio, desk):
    studio.projects[min(studio.projects)]["description"] = "my own"
    with pytest.raises(UserError, match=r"has the title 'mini: demonstration' and is"):
        desk_at(studio).setup()


def test_a_desk_without_projects_says_how_to_make_them(studio):
    with pytest.raises(UserError, match=r"'ann' has no project 'mini: ranking'; run"):
        desk_at(studio).put("ranking", rankings(1))
