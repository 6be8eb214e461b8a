"""Converts dialogues and preferences in the forms of chat libraries to our records.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", ...}]}
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", ...}]}
    {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}
    {"prompt": [{"role": "user", ...}], "chosen": [{"role": "assistant", ...}], ...}
    {"chosen": [a whole dialogue], "rejected": [the same but for its last turn]}
    {"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!", "rejected": "..."}

A system turn, or a field `system`, is put before the first prompt, with a blank line
between. The assistant's last turn is the response, the user's turn before it is the
prompt, and earlier turns are the history. Names of roles never become text.
"""

import re
from typing import Any, NamedTuple

from instructgpt.data.forms.rows import FormRow
from instructgpt.errors import shown

DIALOGUES = ("messages", "conversations", "conversation")
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
# Turns of programs that the assistant calls; our records have no place for them.
_TOOLS = {
    "tool",
    "tool_call",
    "tool_calls",
    "tool_response",
    "tool_result",
    "function",
    "function_call",
    "function_response",
    "function-call",
    "function-response",
    "ipython",
    "observation",
    "environment",
}
_SPEAKER = re.compile(
    r"\A\s*(Human|User|Assistant):|\n\n(Human|Assistant):\s*\Z", re.IGNORECASE
)
# A dialogue in one text: Anthropic's form, and that of the HelpSteer sets, which opens
# with the user.
_SPOKEN = re.compile(r"\n\n(Human|Assistant):")
_MARKED = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_SCORES = ("score_{}", "{}_score", "{}-rating", "{}_rating", "rating_{}")


class _Turn(NamedTuple):
    role: str  # system, user or assistant
    text: str


def has_turns(row: FormRow) -> bool:
    """Whether a row has a field of these forms."""
    return (
        row.knows(*DIALOGUES, "chosen", "rejected", "completion")
        or isinstance(row.listed("prompt"), list)
        or is_dialogue(row.fields.get("prompt"))
    )


def is_dialogue(text: Any) -> bool:
    """Whether a text holds turns of several speakers, by the marks of known sets."""
    return _spoken(text) is not None


def record_fields(row: FormRow) -> dict[str, Any]:
    """History, prompt, and what the kind has besides, of a row that `has_turns`.

    Raises:
      LeftOutError: A turn, an answer or a prompt is empty, missing or out of place.
      UserError: The fields do not make a record of this kind.
    """
    if row.kind == "comparisons":
        return _comparison(row)
    if row.kind == "demonstrations":
        return _demonstration(row)
    if row.kind == "documents":
        return _refuse(row)
    return _prompt(row)


def prompt_fields(row: FormRow) -> dict[str, Any]:
    """History and prompt of a row whose answers are read by another form."""
    return _before(row, None)


def _refuse(row: FormRow) -> Any:
    names = [name for name in (*DIALOGUES, "chosen", "rejected") if row.has(name)]
    found = " and ".join(map(repr, names or ["prompt"]))
    advice = ""
    if row.kind == "demonstrations" and row.has("chosen"):
        advice = " (--columns=response=chosen of prepare takes the chosen answers)"
    raise row.fail(f"the chat form with {found} makes no {row.kind}{advice}")


def _demonstration(row: FormRow) -> dict[str, Any]:
    answer = row.first("response", "completion")
    if row.has("prompt") and answer:
        before, response = _answer(row, answer)
        return {**_before(row, before), "response": response}
    answers = row.knows("response", "completion")
    if row.has("prompt") and answers and not row.has(*DIALOGUES):
        raise row.leave_out("no response", "the response is null")
    if not row.knows(*DIALOGUES):
        return _refuse(row)
    *before, last = _dialogue(row)
    if last.role != "assistant":
        raise row.leave_out(
            "dialogue that ends before the answer",
            "the dialogue ends before the assistant's answer",
        )
    return {**_as_prompt(row, before), "response": last.text}


def _prompt(row: FormRow) -> dict[str, Any]:
    """History and prompt of a row, which may or may not have an answer."""
    if row.has("prompt") or not row.knows(*DIALOGUES):
        answer = row.first("chosen", "rejected")
        if not row.has("prompt") and answer is None:
            raise row.fail("there is no 'prompt'")
        before = None if row.has("prompt") else _answer(row, answer or "")[0]
        return _before(row, before)
    turns = _dialogue(row)
    return _as_prompt(row, turns[:-1] if turns[-1].role == "assistant" else turns)


def _comparison(row: FormRow) -> dict[str, Any]:
    sides = [name for name in ("chosen", "rejected") if row.has(name)]
    if len(sides) == 1:
        (missing,) = {"chosen", "rejected"} - set(sides)
        raise row.leave_out(
            f"no {missing} answer",
            f"the chat form with {sides[0]!r} makes no comparisons without {missing!r}",
        )
    if not sides:
        if row.knows("chosen") and row.knows("rejected"):
            raise row.leave_out("no chosen answer", "'chosen' and 'rejected' are null")
        return _refuse(row)
    before, chosen = _answer(row, "chosen")
    other, rejected = _answer(row, "rejected")
    if before != other:
        raise row.leave_out(
            "chosen and rejected part before the last turn",
            "the chosen and the rejected dialogue part before the last turn",
        )
    ranks = _ranks(row)
    return {**_before(row, before), "responses": [chosen, rejected], "ranks": ranks}


def _ranks(row: FormRow) -> list[int]:
    """[1, 2], the chosen answer first, or a tie if both have the same score."""
    for form in _SCORES:
        names = [form.format(side) for side in ("chosen", "rejected")]
        if all(map(row.has, names)):
            chosen, rejected = (row.number(row.fields[n], n) for n in names)
            if chosen is None or rejected is None:
                continue
            if chosen == rejected:
                return [1, 1]
            if chosen < rejected:
                row.note("chosen answer with the lower score")
    return [1, 2]


def _before(row: FormRow, turns: list[_Turn] | None) -> dict[str, Any]:
    """History and prompt of a row whose answers have been read.

    Args:
      row: a row with `prompt` as text or turns, or a dialogue, or neither.
      turns: the turns before the answers in the answers' fields; None if none.
    """
    prompt = row.listed("prompt")
    if isinstance(prompt, list):
        given = _turns(row, prompt, "prompt")
    elif (spoken := _spoken(prompt)) is not None:
        # Anthropic's form ends with the name of the one who answers.
        given = spoken[:-1] if spoken[-1] == _Turn("assistant", "") else spoken
    elif prompt is None and row.has(*DIALOGUES):
        given = _dialogue(row)
    elif turns is None:
        return _plain_prompt(row, prompt)
    elif isinstance(prompt, str) and ("user", prompt) not in turns:
        raise row.fail("the prompt is no turn of the dialogue")
    else:
        given = turns
    if turns is not None and _with_system(row, turns) != _with_system(row, given):
        raise row.leave_out(
            "prompt that is not what the dialogue begins with",
            "the prompt is not what the dialogue begins with",
        )
    return _as_prompt(row, given)


def _plain_prompt(row: FormRow, prompt: Any) -> dict[str, Any]:
    if prompt is None:
        if row.knows("prompt"):
            raise row.leave_out("no prompt", "the answers have no 'prompt'")
        raise row.fail("the answers have no 'prompt'")
    _check_no_speaker(row, prompt, "prompt")
    if not row.has("system") or not row.fields["system"]:
        return {"prompt": prompt}  # check_record checks its type and a history
    if not isinstance(prompt, str):
        raise row.fail(f"'prompt' must be text, found {shown(prompt)}")
    return _as_prompt(row, [_Turn("user", prompt)])


def _as_prompt(row: FormRow, turns: list[_Turn]) -> dict[str, Any]:
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
            raise row.leave_out(
                "turns that are not the user's and the assistant's in turn",
                f"the {turn.role} speaks where the {due} should",
            )
    if len(turns) % 2 == 0:
        raise row.leave_out(
            "no turn of the user before the answer",
            "the user does not speak before the answer",
        )
    texts = [turn.text for turn in turns]
    if system.strip():
        texts[0] = f"{system.strip()}\n\n{texts[0]}"
    return {"history": texts[:-1], "prompt": texts[-1]}


def _with_system(row: FormRow, turns: list[_Turn]) -> list[_Turn]:
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


def _dialogue(row: FormRow) -> list[_Turn]:
    name = row.first(*DIALOGUES)
    if name is None:
        raise row.leave_out("no dialogue", "the dialogue is null")
    return _turns(row, row.listed(name), name)


def _answer(row: FormRow, name: str) -> tuple[list[_Turn] | None, str]:
    """The turns before the answer in an answer's field, and the answer."""
    value = row.listed(name)
    if isinstance(value, str):
        # A text that is a whole dialogue; beside a prompt it would be odd.
        turns = None if row.has("prompt") else _spoken(value)
        if turns is None:
            _check_no_speaker(row, value, name)
            return None, value
    else:
        turns = _turns(row, [value] if isinstance(value, dict) else value, name)
    if turns[-1].role != "assistant":
        raise row.leave_out(
            "dialogue that ends before the answer",
            f"{name!r} does not end with the assistant's answer",
        )
    return turns[:-1] or None, turns[-1].text


def _spoken(text: Any) -> list[_Turn] | None:
    """The turns of a dialogue in one text; None if it is another text."""
    if not isinstance(text, str):
        return None
    first, *parts = _SPOKEN.split(text)
    if parts and not first.strip():
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [_Turn(_ROLES[who.lower()], said.strip()) for who, said in pairs]
    first, *parts = _MARKED.split(text)
    if not parts:
        return None
    pairs = zip(["user", *parts[::2]], [first, *parts[1::2]], strict=True)
    turns = [_Turn(_ROLES[who.lower()], said) for who, said in pairs]
    return turns if turns[0].text.strip() else turns[1:]


def _check_no_speaker(row: FormRow, text: Any, name: str) -> None:
    found = isinstance(text, str) and _SPEAKER.search(text)
    if found:
        raise row.fail(
            f"{name!r} has the speaker's name {found[0].strip()!r} in its text (for"
            " Anthropic's dialogues give hh_rlhf_helpful:FILE)"
        )


def _turns(row: FormRow, values: Any, name: str) -> list[_Turn]:
    if isinstance(values, list) and not values:
        raise row.leave_out(
            "empty dialogue", f"{name!r} must be a list of turns, found []"
        )
    if not isinstance(values, list):
        raise row.fail(f"{name!r} must be a list of turns, found {shown(values)}")
    return [_turn(row, value, f"{name}[{i}]") for i, value in enumerate(values)]


def _turn(row: FormRow, value: Any, name: str) -> _Turn:
    if not isinstance(value, dict):
        raise row.fail(f"{name} must be a turn with a role, found {shown(value)}")
    role = value.get("role", value.get("from"))
    text = value.get("content", value.get("value"))
    if not isinstance(role, str) or role.lower() not in _ROLES:
        problem = f"{name} is of the role {shown(role)}, which has no place here"
        if isinstance(role, str) and role.lower() in _TOOLS:
            raise row.leave_out("turn of a tool", problem)
        raise row.fail(problem)
    problem = f"the content of {name} must be text, found {shown(text)}"
    if isinstance(text, list) and text:
        text = _joined(text)
        if text is None:
            raise row.leave_out("turn with other parts than text", problem)
    if text is None:
        raise row.leave_out("turn without text", problem)
    if not isinstance(text, str):
        raise row.fail(problem)
    return _Turn(_ROLES[role.lower()], text)


def _joined(parts: list[Any]) -> str | None:
    """A turn's text that is given in parts, or None if not all are text."""
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") == "text" else 0
        for part in parts
    ]
    kept = [text for text in texts if isinstance(text, str)]
    return "".join(kept) if len(kept) == len(texts) else None
