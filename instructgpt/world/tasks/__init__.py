"""The kinds of task, one file for each category of the paper's Table 1."""

from instructgpt.world.kinds import Kind
from instructgpt.world.tasks import (
    brainstorming,
    chat,
    classification,
    closed_qa,
    extract,
    generation,
    open_qa,
    other,
    rewrite,
    summarization,
)

KINDS: dict[str, Kind] = {
    kind.name: kind()
    for kind in (
        generation.DescribePerson,
        generation.DescribeTown,
        generation.Letter,
        generation.Story,
        generation.Advert,
        generation.Birthday,
        generation.Refuse,
        brainstorming.ListClass,
        brainstorming.Residents,
        brainstorming.Gifts,
        brainstorming.Trip,
        open_qa.AskPerson,
        open_qa.AskTown,
        open_qa.FalsePremise,
        open_qa.AskHarm,
        closed_qa.ClosedQA,
        extract.Extract,
        chat.ChatAsk,
        chat.ChatGreet,
        chat.ChatMood,
        chat.ChatHarm,
        rewrite.PastTense,
        rewrite.FirstPerson,
        rewrite.Polite,
        summarization.Summarise,
        classification.Sentiment,
        classification.ClassOf,
        other.Sum,
        other.OddOneOut,
    )
}
