"""Task -> the data of a task in Label Studio: what a labeler is shown."""

from typing import Any

from instructgpt.errors import UserError
from instructgpt.labelling.interface import Task
from instructgpt.labelling.pages import names

_SPEAKERS = ("User", "Assistant")


def task_data(task: Task) -> dict[str, Any]:
    """The data of a task: its key, the dialogue, and a card for each answer.

    Raises:
      UserError: the page cannot show so many answers.
    """
    least = {"demonstration": 0, "rating": 1}.get(task.page, 2)
    most = {"demonstration": 0, "rating": 1}.get(task.page, names.MOST)
    if not least <= len(task.answers) <= most:
        raise UserError(
            f"task {task.key!r} has {len(task.answers)} answers; its page, "
            f"{task.page}, shows {least if least == most else f'{least} to {most}'}"
        )
    turns = (*task.history, task.prompt)
    # The last turn is the user's, whatever the number of turns is.
    first = (len(turns) + 1) % 2
    return {
        "key": task.key,
        "page": task.page,
        names.DIALOG: [
            {"speaker": _SPEAKERS[(first + i) % 2], "text": text}
            for i, text in enumerate(turns)
        ],
        names.ANSWERS: [
            {
                "id": names.card(i),
                "title": f"Answer {names.card(i).upper()}",
                "body": text,
            }
            for i, text in enumerate(task.answers)
        ],
    }
