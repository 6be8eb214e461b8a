"""Converts dialogues and preferences in the forms of chat libraries to our records.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", ...}]}
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", ...}]}
    {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}
    {"prompt": [{"role": "user", ...}], "chosen": [{"role": "assistant", ...}], ...}
    {"chosen": [a whole dialogue], "rejected": [the same but for its last turn]}

A system turn, or a field `system`, is put before the first prompt, with a blank line
between. The assistant's last turn is the response, the user's turn before it is the
prompt, and earlier turns are the history. A row with our fields is left as it is. Names
of roles never become text.
"""

import re
from typing import Any, NamedTuple

from instructgpt.errors import UserError, shown

_DIALOGUES = ("messages", "conversations", "conversation")
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_SPEAKER = re.compile(
    r"\A\s*(Human|User|Assistant):|\n\n(Human|Assistant):\s*\Z", re.IGNORECASE
)
_OURS = {
    "documents": "'text'",
    "prompts": "'history' and 'prompt'",
    "rm_prompts": "'history' and 'prompt'",
    "demonstrations": "'history', 'prompt' and 'response'",
    "comparisons": "'history', 'prompt', 'responses' and 'ranks'",
}


class _Turn(NamedTuple):
    role: str  # system, user or assistant
    text: str


class _Row(NamedTuple):
    """A row of a file; `fail` makes an error that names the row and our fields."""

    fields: dict[str, Any]
    kind: str
    where: str

    def has(self, *names: str) -> bool:
        return any(self.fields.get(name) is not None for name in names)

    def fail(self, problem: str) -> UserError:
        return UserError(
            f"{self.where}: {problem}; write {self.kind} with the fields"
            f" {_OURS[self.kind]}."
        )


def plain_form(value: Any, *, kind: str, where: str) -> Any:
    """Converts a row of a chat form to our fields; returns other values unchanged.

    Args:
      value: a value of a file.
      kind: kind of record to make.
      where: place named at the start of an error message.

    Raises:
      UserError: the turns of a chat form do not make a record of this kind.
    """
    if not isinstance(value, dict):
        return value
    row = _Row(value, kind, where)
    listed = isinstance(value.get("prompt"), list)
    if not (row.has(*_DIALOGUES, "chosen", "rejected", "completion") or listed):
        return value
    if kind == "documents":
        return value if row.has("text") else _refuse(row)
    if kind == "comparisons":
        return value if row.has("responses") else {**value, **_comparison(row)}
    if kind == "demonstrations":
        ours = row.has("response") and row.has("prompt") and not listed
        return value if ours else {**value, **_demonstration(row)}
    return value if row.has("prompt") and not listed else {**value, **_prompt(row)}


def _refuse(row: _Row) -> Any:
    names = [name for name in (*_DIALOGUES, "chosen", "rejected") if row.has(name)]
    found = " and ".join(map(repr, names or ["prompt"]))
    raise row.fail(f"the chat form with {found} makes no {row.kind}")


def _demonstration(row: _Row) -> dict[str, Any]:
    answers = [name for name in ("response", "completion") if row.has(name)]
    if row.has("prompt") and answers:
        before, response = _answer(row, answers[0])
        return {**_before(row, before), "response": response}
    if not row.has(*_DIALOGUES):
        return _refuse(row)
    *before, last = _dialogue(row)
    if last.role != "assistant":
        raise row.fail("the dialogue ends before the assistant's answer")
    return {**_as_prompt(row, before), "response": last.text}


def _prompt(row: _Row) -> dict[str, Any]:
    """History and prompt of a row, which may or may not have an answer."""
    if row.has("prompt") or not row.has(*_DIALOGUES):
        before = None if row.has("prompt") else _answer(row, "chosen")[0]
        return _before(row, before)
    turns = _dialogue(row)
    return _as_prompt(row, turns[:-1] if turns[-1].role == "assistant" else turns)


def _comparison(row: _Row) -> dict[str, Any]:
    if not (row.has("chosen") and row.has("rejected")):
        return _refuse(row)
    before, chosen = _answer(row, "chosen")
    other, rejected = _answer(row, "rejected")
    if before != other:
        raise row.fail("the chosen and the rejected dialogue part before the last turn")
    return {**_before(row, before), "responses": [chosen, rejected], "ranks": [1, 2]}


def _before(row: _Row, turns: list[_Turn] | None) -> dict[str, Any]:
    """History and prompt of a row whose answers have been read.

    Args:
      row: a row with `prompt` as text or turns, or a dialogue, or neither.
      turns: the turns before the answers in the answers' fields; None if none.
    """
    prompt = row.fields.get("prompt")
    if isinstance(prompt, list):
        given = _turns(row, prompt, "prompt")
    elif prompt is None and row.has(*_DIALOGUES):
        given = _dialogue(row)
    elif turns is None:
        return _plain_prompt(row, prompt)
    elif isinstance(prompt, str) and ("user", prompt) not in turns:
        raise row.fail("the prompt is no turn of the dialogue")
    else:
        given = turns
    if turns is not None and _with_system(row, turns) != _with_system(row, given):
        raise row.fail("the prompt is not what the dialogue begins with")
    return _as_prompt(row, given)


def _plain_prompt(row: _Row, prompt: Any) -> dict[str, Any]:
    if prompt is None:
        raise row.fail("the answers have no 'prompt'")
    _check_no_speaker(row, prompt, "prompt")
    if row.has("system"):
        raise row.fail("a field 'system' beside a prompt; put it into the prompt")
    return {"prompt": prompt}  # check_record checks its type and a history


def _as_prompt(row: _Row, turns: list[_Turn]) -> dict[str, Any]:
    """Splits turns that end with the user's into history and prompt."""
    if row.fields.get("history"):
        raise row.fail("a 'history' beside turns of a dialogue; give one of them")
    turns = _with_system(row, turns)
    system = ""
    if turns and turns[0].role == "system":
        system, turns = turns[0].text, turns[1:]
    for number, turn in enumerate(turns):
        due = ("user", "assistant")[number % 2]
        if turn.role != due:
            raise row.fail(f"the {turn.role} speaks where the {due} should")
    if len(turns) % 2 == 0:
        raise row.fail("the user does not speak before the answer")
    texts = [turn.text for turn in turns]
    if system.strip():
        texts[0] = f"{system.strip()}\n\n{texts[0]}"
    return {"history": texts[:-1], "prompt": texts[-1]}


def _with_system(row: _Row, turns: list[_Turn]) -> list[_Turn]:
    """The turns, preceded by the field `system` if there is one."""
    system = row.fields.get("system")
    if not system:
        return turns
    if not isinstance(system, str):
        raise row.fail(f"field 'system' must be text, found {shown(system)}")
    if turns and turns[0].role == "system":
        if turns[0].text == system:
            return turns
        raise row.fail("a field 'system' beside a system turn; give one of them")
    return [_Turn("system", system), *turns]


def _dialogue(row: _Row) -> list[_Turn]:
    name = next(name for name in _DIALOGUES if row.has(name))
    return _turns(row, row.fields[name], name)


def _answer(row: _Row, name: str) -> tuple[list[_Turn] | None, str]:
    """The turns before the answer in an answer's field, and the answer."""
    value = row.fields.get(name)
    if isinstance(value, str):
        _check_no_speaker(row, value, name)
        return None, value
    turns = _turns(row, [value] if isinstance(value, dict) else value, name)
    if turns[-1].role != "assistant":
        raise row.fail(f"{name!r} does not end with the assistant's answer")
    return turns[:-1] or None, turns[-1].text


def _check_no_speaker(row: _Row, text: Any, name: str) -> None:
    found = isinstance(text, str) and _SPEAKER.search(text)
    if found:
        raise row.fail(
            f"{name!r} has the speaker's name {found[0].strip()!r} in its text (for"
            " Anthropic's dialogues give hh_rlhf_helpful:FILE)"
        )


def _turns(row: _Row, values: Any, name: str) -> list[_Turn]:
    if not isinstance(values, list) or not values:
        raise row.fail(f"{name!r} must be a list of turns, found {shown(values)}")
    return [_turn(row, value, f"{name}[{i}]") for i, value in enumerate(values)]


def _turn(row: _Row, value: Any, name: str) -> _Turn:
    if not isinstance(value, dict):
        raise row.fail(f"{name} must be a turn with a role, found {shown(value)}")
    role = value.get("role", value.get("from"))
    text = value.get("content", value.get("value"))
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise row.fail(f"{name} is of the role {shown(role)}, which has no place here")
    if not isinstance(text, str):
        raise row.fail(f"the content of {name} must be text, found {shown(text)}")
    return _Turn(_ROLES[role.lower()], text)
