"""The harness's view of a model: what is scored and what is completed."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.convert.importing import import_checkpoint
from instructgpt.errors import UserError
from instructgpt.evals.benchmarks.adapter import HarnessModel, TokenLogProb
from instructgpt.inference import LanguageModel
from instructgpt.models.transformer import Transformer
from tests.hf_models import write_chat_model
from tests.stages.compile_spy import compiled_so_far

TEXT = "Where are the old maps? You will find the old maps in room 7."


def ask(*args) -> SimpleNamespace:
    """A request of the harness."""
    return SimpleNamespace(args=args)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LanguageModel:
    root = tmp_path_factory.mktemp("adapter")
    write_chat_model(root / "theirs")
    import_checkpoint(str(root / "theirs"), root / "base")
    return LanguageModel.open(root / "base")


def log_probs(model: LanguageModel, ids: list[int]) -> np.ndarray:
    """log p of each token but the first, by one plain pass over whole rows."""
    tokens = jnp.array([[ids]])
    hidden, _ = model.model.apply(
        {"params": model.params}, tokens, jnp.ones(tokens.shape, bool)
    )
    logits = model.model.apply({"params": model.params}, hidden[0, 0], method="logits")
    found = jax.nn.log_softmax(logits[:-1], axis=-1)
    return np.asarray(found)[np.arange(len(ids) - 1), ids[1:]]


def encode(model: LanguageModel, text: str) -> list[int]:
    return model.text.prompt_format.prompt_ids({"prompt": text}, raw=True)


@pytest.mark.parametrize(
    ("context", "choice"),
    [
        ("Where are the old maps?", " In room 7."),
        ("Where are the old maps? ", "In room 7."),  # the blank is the choice's
        ("Where are the", " clocks"),
        ("Where are the old map", "s"),  # a token may span the border
    ],
)
def test_scored_ids_are_those_of_the_whole_text(model, context, choice):
    ((found, _),) = HarnessModel(model).loglikelihood([ask(context, choice)])
    whole = encode(model, context + choice)
    assert 1 <= found.num_tokens < len(whole)
    values = log_probs(model, whole)
    assert found == pytest.approx(values[-found.num_tokens :].sum(), abs=1e-4)


def test_a_trailing_blank_belongs_to_the_choice(model):
    requests = [ask("The maps ", "are old"), ask("The maps", " are old")]
    a, b = HarnessModel(model).loglikelihood(requests)
    assert a == b


@pytest.mark.parametrize("context", ["", "W", "Whe", "Wher"])
def test_a_choice_always_has_a_token(model, context):
    """Even where its letters merge with those before them."""
    rest = "Where"[len(context) :]
    ((found, _),) = HarnessModel(model).loglikelihood([ask(context, rest)])
    assert isinstance(found, TokenLogProb)
    assert found.num_tokens >= 1
    assert found < 0


def test_choices_of_one_question_are_as_if_alone(model):
    """Its prompt is computed once for all of them; the numbers are the same."""
    choices = [" In room 7.", " I do not know", " On the upper floor, in room 7", " No"]
    requests = [ask("Where are the old maps?", choice) for choice in choices]
    together = HarnessModel(model).loglikelihood(requests)
    for request, (found, greedy) in zip(requests, together, strict=True):
        ((alone, same),) = HarnessModel(model).loglikelihood([request])
        assert found == pytest.approx(alone, abs=1e-4)
        assert (found.num_tokens, greedy) == (alone.num_tokens, same)


def test_a_context_that_is_too_long_loses_its_beginning(model):
    limit = model.model.config.context_length
    long = "See the old maps. " * limit
    ((found, _),) = HarnessModel(model).loglikelihood([ask(long, " Enjoy")])
    whole = encode(model, long + " Enjoy")
    kept = whole[-limit:]
    values = log_probs(model, kept)
    assert found == pytest.approx(values[-found.num_tokens :].sum(), abs=1e-3)


def test_whole_texts_in_windows(model):
    short, long = TEXT, TEXT * 20
    requests = [ask(short), ask(long)]
    found = HarnessModel(model).loglikelihood_rolling(requests)
    eos = model.text.prompt_format.tokenizer.eos_id
    whole = log_probs(model, [eos, *encode(model, short)]).sum()
    assert found[0] == pytest.approx(whole, abs=1e-4)
    # Every token is scored once: the windows add up to about as much a token.
    tokens = [len(encode(model, text)) for text in (short, long)]
    assert tokens[1] > model.model.config.context_length
    per_token = np.divide(found, tokens)
    assert per_token[1] == pytest.approx(per_token[0], rel=0.3)


def greedy(model: LanguageModel, text: str, number: int) -> list[int]:
    """Tokens by a whole pass for each, the plainest decoder."""
    ids = encode(model, text)
    form = model.text.prompt_format
    stops = {form.end_id, form.tokenizer.eos_id}
    drawn: list[int] = []
    for _ in range(number):
        tokens = jnp.array([[ids + drawn]])
        hidden, _ = model.model.apply(
            {"params": model.params}, tokens, jnp.ones(tokens.shape, bool)
        )
        logits = model.model.apply(
            {"params": model.params}, hidden[0, 0, -1:], method="logits"
        )[0]
        logits = logits.at[form.pad_id].set(-jnp.inf)
        drawn.append(int(logits.argmax()))
        if drawn[-1] in stops:
            break
    return drawn


def test_completions_are_greedy_and_end_before_a_stop(model):
    contexts = ["Where are the", "You will find the old maps in room", "x"]
    settings = {"until": ["\n", "Q:"], "max_gen_toks": 24, "do_sample": False}
    found = HarnessModel(model).generate_until([ask(c, settings) for c in contexts])
    decode = model.text.prompt_format.tokenizer.decode
    for context, text in zip(contexts, found, strict=True):
        whole = decode(greedy(model, context, 24))
        ends = [whole.find(stop) for stop in settings["until"] if stop in whole]
        assert text == whole[: min(ends, default=len(whole))]


def test_a_stop_inside_a_token_ends_the_completion_there(model):
    """The text is as if all 24 tokens were drawn and then cut at the stop."""
    (whole,) = model.complete(["Where are the"], stops=(), max_response=24)
    inside = whole[len(whole) // 2]
    (cut,) = model.complete(["Where are the"], stops=(inside,), max_response=24)
    assert cut == whole[: whole.index(inside)]


def test_settings_that_completions_lack_are_refused_by_name(model):
    with pytest.raises(UserError, match="num_beams"):
        HarnessModel(model).generate_until([ask("a", {"num_beams": 4})])


def test_what_a_model_has_said_is_kept(model, tmp_path, monkeypatch):
    requests = [ask(TEXT[:n], TEXT[n : n + 9]) for n in range(6, 40, 3)]
    answers = [ask(TEXT[:n], {"until": ["\n"], "max_gen_toks": 8}) for n in (5, 20, 50)]
    first = HarnessModel(model, keep=tmp_path)
    said = first.loglikelihood(requests), first.generate_until(answers)

    def fail(*args, **kwargs):
        raise AssertionError("the model is asked again")

    again = HarnessModel(
        dataclasses.replace(model, params=None, model=model.model), keep=tmp_path
    )
    monkeypatch.setattr("instructgpt.inference.language_model.generate", fail)
    assert (again.loglikelihood(requests), again.generate_until(answers)) == said
    # A model of another config is asked, although its weights are the same.
    other = dataclasses.replace(model.model.config, norm_eps=1e-3)
    changed = dataclasses.replace(model, model=Transformer(other))
    assert HarnessModel(changed, keep=tmp_path).loglikelihood(requests) != said[0]
    assert HarnessModel(model, keep=tmp_path).loglikelihood(requests) == said[0]
    # A part that is missing is computed, the rest is not.
    parts = sorted((tmp_path / "0-choices").iterdir())
    parts[-1].unlink()
    assert HarnessModel(model, keep=tmp_path).loglikelihood(requests) == said[0]


def test_texts_of_all_lengths_share_a_width_and_nothing_else_changes(model):
    texts = ["Where?", f"{TEXT} {TEXT}"]
    plain = model.complete(texts, max_response=4, batch_size=2)
    pairs = [(text, more) for text in texts for more in (" In room 7.", " Here.")]
    scores = model.log_likelihood(pairs, raw=True, batch_size=2)
    # The first calls compile what those with texts of another length use.
    options = dict(batch_size=16, width=64)
    completed = model.complete(texts[:1], max_response=4, **options)
    found = model.log_likelihood(pairs[:2], raw=True, **options)
    before = compiled_so_far()
    completed += model.complete(texts[1:], max_response=4, **options)
    found += model.log_likelihood(pairs[2:], raw=True, **options)
    assert compiled_so_far() == before
    assert completed == plain
    for a, b in zip(found, scores, strict=True):
        assert a.log_prob == pytest.approx(b.log_prob, abs=1e-4)
