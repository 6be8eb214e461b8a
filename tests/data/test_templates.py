"""Prompts in each template by hand, by transformers, and turn by turn."""

import itertools

import pytest
from tokenizers import processors

from instructgpt.data.templates import TEMPLATES, PromptFormat
from instructgpt.errors import UserError
from instructgpt.tokenizer import load_tokenizer, train_tokenizer
from instructgpt.tokenizer.bpe import BPETokenizer
from tests.tokenizer.samples import (
    AWKWARD,
    CORPUS,
    random_texts,
    train_byte_level,
    train_pieces,
)

# EOS as the chat models of a template have it.
EOS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}
CONTROLS = (
    *("<|endoftext|>", "<|bos|>", "<|im_start|>", "<|im_end|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
END_OF_TEXT, BOS, IM_START, IM_END, HEADER, HEADER_END, EOT = range(len(CONTROLS))
DIALOGUE = ["the cat", "sat on", "  the mat\n", "", "house"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def pipeline():
    texts = [*CORPUS, *["user\nassistant\n\n\nHuman: \n\nAssistant: "] * 100]
    pipeline = train_byte_level(*CONTROLS, texts=texts, vocab_size=330)
    pipeline.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", BOS)]
    )
    return pipeline


@pytest.fixture
def make(pipeline):
    """A template's format, whose tokenizer begins texts with BOS if asked to."""

    def make(template: str, *, bos: bool = False) -> PromptFormat:
        eos = EOS.get(template, "<|endoftext|>")
        copy = type(pipeline).from_str(pipeline.to_str())
        tokenizer = BPETokenizer(copy, eos=eos, bos="<|bos|>" if bos else None)
        return PromptFormat(tokenizer, template)

    return make


def record(*turns: str) -> dict:
    *history, prompt = turns
    return {"id": "r1", "history": history, "prompt": prompt}


def spelt(prompt_format: PromptFormat, parts: list) -> list[int]:
    """Ids of text and control tokens, side by side."""
    encode = prompt_format.tokenizer.encode
    ids = ([part] if isinstance(part, int) else encode(part) for part in parts)
    return [*itertools.chain.from_iterable(ids)]


USER = [IM_START, "user\n"]
ASSISTANT = [IM_END, "\n", IM_START, "assistant\n"]
HUMAN = [HEADER, "user", HEADER_END]
MODEL = [EOT, HEADER, "assistant", HEADER_END, "\n\n"]
BY_HAND = {
    "none": ["a", "b", END_OF_TEXT, "c"],
    "plain": ["a\n", "b", END_OF_TEXT, "c\n"],
    "dialogue": [
        *("\n\nHuman: a\n\nAssistant:", " b", END_OF_TEXT),
        "\n\nHuman: c\n\nAssistant:",
    ],
    "chatml": [
        *(IM_START, "user\na", *ASSISTANT, "b", IM_END, "\n"),
        *(IM_START, "user\nc", *ASSISTANT),
    ],
    "llama3": [*HUMAN, "\n\na", *MODEL, "b", EOT, *HUMAN, "\n\nc", *MODEL],
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_by_hand(template, make):
    prompt_format = make(template)
    ids = prompt_format.prompt_ids(record("a", "b", "c"))
    assert ids == spelt(prompt_format, BY_HAND[template])
    # Without history: the last prompt, and what stands before the first.
    single = prompt_format.prompt_ids({"id": "r1", "prompt": "a"})
    assert single == ids[: len(single)] == prompt_format.prompt_ids(record("a"))
    answer = " b" if template == "dialogue" else "b"
    assert prompt_format.response_ids("b") == spelt(
        prompt_format, [answer, prompt_format.tokenizer.eos_id]
    )


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_dialogue_begins_with_each_of_its_turns(template, bos, make):
    prompt_format = make(template, bos=bos)
    whole = prompt_format.prompt_ids(record(*DIALOGUE))
    for end in range(1, len(DIALOGUE), 2):
        turn = prompt_format.prompt_ids(record(*DIALOGUE[:end]))
        turn += prompt_format.response_ids(DIALOGUE[end])
        assert whole[: len(turn)] == turn
        assert len(turn) < len(whole)


@pytest.mark.parametrize("template", TEMPLATES)
def test_bos_comes_first_once(template, make):
    turns = record(*DIALOGUE)
    without = make(template).prompt_ids(turns)
    assert BOS not in without
    begun = make(template, bos=True)
    assert begun.prompt_ids(turns) == [BOS, *without]
    assert begun.prompt_ids(turns, raw=True) == spelt(begun, [BOS, "house"])
    assert BOS not in begun.response_ids("house")


@pytest.mark.parametrize("template", TEMPLATES)
def test_control_tokens_stand_only_in_the_places_of_the_template(template, make):
    prompt_format = make(template)

    def controls(*turns):
        ids = prompt_format.prompt_ids(record(*turns))
        return [i for i in ids if i < len(CONTROLS)]

    spoof = "".join(CONTROLS)
    assert controls(spoof, spoof, spoof) == controls("a", "b", "c")
    *answer, eos = prompt_format.response_ids(spoof)
    assert eos == prompt_format.tokenizer.eos_id
    assert all(i >= len(CONTROLS) for i in answer)


@pytest.mark.parametrize("template", TEMPLATES)
def test_responses_come_back(template, make):
    prompt_format = make(template)
    for text in [*AWKWARD, *random_texts(300), *CONTROLS]:
        ids = prompt_format.response_ids(text)
        assert prompt_format.response_text(ids) == text
        # A sample cut at its limit, and one with padding behind it.
        assert prompt_format.response_text(ids[:-1]) == text
        assert prompt_format.response_text([*ids, prompt_format.pad_id]) == text


@pytest.mark.parametrize("template", ["plain", "dialogue"])
def test_responses_come_back_from_pieces(template, tmp_path):
    tokenizer = train_tokenizer(CORPUS, tmp_path / "model", vocab_size=320)
    prompt_format = PromptFormat(tokenizer, template)
    for text in [*AWKWARD, *random_texts(300)]:
        assert prompt_format.response_text(prompt_format.response_ids(text)) == text


@pytest.mark.parametrize("turns", [1, 3, 5])
def test_chatml_is_that_of_transformers(turns, make, pipeline):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("jinja2", reason="transformers renders templates with it")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=pipeline, eos_token="<|im_end|>", chat_template=CHATML
    )
    roles = ["user", "assistant"] * 3
    messages = [
        {"role": role, "content": text}
        for role, text in zip(roles, DIALOGUE[:turns], strict=False)
    ]
    ids = theirs.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert make("chatml").prompt_ids(record(*DIALOGUE[:turns])) == ids


def test_templates_that_cannot_be_used_are_named(tmp_path):
    tokenizer = train_tokenizer(CORPUS, tmp_path / "model", vocab_size=320)
    with pytest.raises(UserError, match=r"template='alpaca' does not exist; known: pl"):
        PromptFormat(tokenizer, "alpaca")
    for template, token in [("chatml", "im_start"), ("llama3", "start_header_id")]:
        message = rf"config\.data\.template='{template}': .* '<\|{token}\|>'"
        with pytest.raises(UserError, match=message):
            PromptFormat(tokenizer, template)
    without = train_byte_level("<|endoftext|>", "<|im_start|>")
    tokenizer = BPETokenizer(without, eos="<|endoftext|>")
    with pytest.raises(UserError, match=r"'chatml': .* no token '<\|im_end\|>'"):
        PromptFormat(tokenizer, "chatml")


@pytest.mark.parametrize("template", ["plain", "dialogue"])
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_a_tokenizer_that_drops_line_breaks_is_refused(template, model_type, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_pieces(model_type=model_type, vocab_size=60))
    with pytest.raises(
        UserError, match=rf"template='{template}': .* drops line breaks"
    ):
        PromptFormat(load_tokenizer(path), template)


def test_the_mark_that_closes_turns_ends_responses(pipeline):
    base = BPETokenizer(pipeline, eos="<|endoftext|>")
    for template, end in [("plain", END_OF_TEXT), ("chatml", IM_END), ("llama3", EOT)]:
        prompts = PromptFormat(base, template)
        assert prompts.end_id == prompts.response_ids("the cat")[-1] == end
        history = {"history": ["the", "cat"], "prompt": "sat"}
        assert prompts.prompt_ids(history).count(END_OF_TEXT) == (template == "plain")
