"""Checkpoints of the finished recipe, and an imported one, asked for text."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from instructgpt.convert import __main__ as convert
from instructgpt.data.records import as_records
from instructgpt.data.sources import open_source
from instructgpt.errors import UserError
from instructgpt.inference import LanguageModel, RewardModel, language_model
from instructgpt.sharding import MeshConfig, make_mesh
from tests import tiny
from tests.hf_models import CONFIGS, params_of, public_tensors, write_folder
from tests.stages.compile_spy import compiled_so_far
from tests.stages.recipe_run import Finished, finished, link_stages

PROMPT = "Where does Dela live?"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture(scope="module")
def policy(run: Finished) -> LanguageModel:
    return LanguageModel.open(run.workdir / "ppo", part="ema")


def load_json(path):
    return json.loads(path.read_text())


def asked(run: Finished) -> list[dict]:
    """The records that the evaluate stage asked."""
    (world,) = (run.workdir / "data").glob("world-*")
    found = []
    for kind in ("prompts", "gpt_prompts"):
        source = open_source(kind, world.name, run.workdir / "data", "test")
        found += [source[i] for i in range(len(source))]
    return found


def test_a_checkpoint_gives_what_its_stage_gave_from_any_folder(
    run, tmp_path, monkeypatch
):
    """The answers and the mean score of the evaluate stage, to the bit."""
    monkeypatch.chdir(run.workdir / "select")
    policy = LanguageModel.open("../ppo", part="ema")
    assert policy.mesh.shape == {"data": 2, "fsdp": 2, "tensor": 2}
    records = asked(run)
    texts = policy.generate(records, key=0, batch_size=16)
    given = load_json(run.workdir / "evaluate" / "samples" / "ppo.json")
    assert [t[0].strip("\n") for t in texts] == [row["response"] for row in given]
    scores = RewardModel.open("../reward").score(
        records, [row["response"] for row in given], batch_size=16
    )
    assert scores.dtype == np.float32
    results = load_json(run.workdir / "evaluate" / "results.json")
    # The table is of instructions.
    instructions = [r["distribution"] == "instructgpt" for r in records]
    mean = scores[np.array(instructions)].mean(dtype=np.float64)
    assert mean == pytest.approx(results["models"]["ppo"]["mean_score"][0], rel=1e-6)


def test_solved_examples_before_each_prompt(run):
    model = LanguageModel.open(run.workdir / "pretrain")
    template = load_json(run.workdir / "prefix" / "prefix.json")["template"]
    shown = model.few_shot(lambda text: template.replace("{prompt}", text))
    texts = shown.generate(asked(run), temperature=0.7, batch_size=16)
    given = load_json(run.workdir / "evaluate" / "samples" / "gpt_prompted.json")
    assert [t[0].strip("\n") for t in texts] == [row["response"] for row in given]
    # A continuation's probability is that after the same examples.
    question = "Where does Dela live?"
    (found,) = shown.log_likelihood([(question, " In Velden.")])
    whole = (template.replace("{prompt}", question), " In Velden.")
    assert [found] == model.log_likelihood([whole], raw=True)
    assert [found] != model.log_likelihood([(question, " In Velden.")])
    with pytest.raises(UserError, match=r"pretrain.*examples of \d+ tokens.*of 192"):
        model.few_shot(lambda text: "word " * 200 + text)


def test_models_that_differ_in_parameters_share_what_is_compiled(run, policy):
    options = dict(key=1, num_samples=2, temperature=0.9)
    first = policy.generate([PROMPT, PROMPT], **options)
    other = LanguageModel.open(run.workdir / "ppo_ptx")
    before = compiled_so_far()
    second = other.generate([PROMPT, PROMPT], **options)
    assert compiled_so_far() == before
    assert first != second
    assert [len(texts) for texts in first] == [2, 2]
    # Another place among the prompts, another sample, another key: other draws.
    assert len({text for texts in first for text in texts}) == 4
    assert policy.generate([PROMPT, PROMPT], **options) == first
    assert policy.generate([PROMPT, PROMPT], **{**options, "key": 2}) != first
    assert policy.generate([]) == []


def test_live_parameters_answer_as_their_checkpoint(policy):
    live = LanguageModel(policy.model, policy.params, policy.text, policy.mesh)
    assert live.generate([PROMPT]) == policy.generate([PROMPT])
    with pytest.raises(ValueError, match="keep= is for models from a checkpoint"):
        live.generate([PROMPT], keep="folder")


def test_another_mesh_gives_the_same_answers(run, policy):
    mesh = make_mesh(MeshConfig(data=8))
    other = LanguageModel.open(run.workdir / "ppo", part="ema", mesh=mesh)
    assert other.generate([PROMPT]) == policy.generate([PROMPT])


def test_a_history_is_read_and_counted(policy):
    record = {"prompt": PROMPT, "history": ["Hello.", "Hello to you."]}
    ids = policy.text.prompt_format.prompt_ids(record)
    assert policy.prompt_length(record) == len(ids)
    assert policy.prompt_length(record) > policy.prompt_length({"prompt": PROMPT})
    with_history, without = policy.log_likelihood([(record, "Yes"), (PROMPT, "Yes")])
    assert with_history.log_prob != without.log_prob
    with pytest.raises(UserError, match=r"record '0': its history holds 1 texts"):
        policy.generate([{**record, "history": ["Hello."]}])


def test_what_is_too_long_is_refused_before_the_first_answer(policy, monkeypatch):
    monkeypatch.setattr(language_model, "generate", None)
    with pytest.raises(UserError, match=r"^record 'b': its prompt.*limit is 40"):
        policy.generate([PROMPT, {"id": "b", "prompt": "house " * 90}])
    with pytest.raises(UserError, match=r"prompt of 40 and a response of 999 tokens"):
        policy.generate([PROMPT], max_response=999)


def naive_likelihood(model: LanguageModel, before: list[int], target: list[int]):
    """From the whole distribution at every token, without padding or a mesh."""
    tokens = jnp.array([before + target])[:, None]
    variables = {"params": jax.device_get(model.params)}
    hidden, _ = model.model.apply(variables, tokens, jnp.ones_like(tokens, bool))
    logits = model.model.apply(variables, hidden[:, 0], method="logits")
    logits = np.array(logits, np.float64)[0]
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    at = range(len(before) - 1, len(before) + len(target) - 1)
    log_prob = sum(logits[i, t] for i, t in zip(at, target, strict=True))
    greedy = all(logits[i].argmax() == t for i, t in zip(at, target, strict=True))
    return log_prob, greedy


def test_log_likelihoods_are_those_of_the_whole_distribution(policy):
    form = policy.text.prompt_format
    best = policy.generate([PROMPT], temperature=0, max_response=6)[0][0]
    pairs = [(PROMPT, "Osterby."), ({"prompt": "A.", "history": ["b", "c"]}, "Yes")]
    pairs += [(PROMPT, best), (PROMPT, ""), ("Who? " * 6, "Dela lives there. " * 9)]
    found = policy.log_likelihood(pairs, batch_size=2)
    for (prompt, text), value in zip(pairs, found, strict=True):
        record = {"prompt": prompt} if isinstance(prompt, str) else prompt
        before, target = form.prompt_ids(record), form.response_ids(text)[:-1]
        expected, greedy = naive_likelihood(policy, before, target)
        assert value.log_prob == pytest.approx(expected, abs=1e-3)
        assert value.num_tokens == len(target)
        if text != best:  # which may be encoded in other pieces than were drawn
            assert value.greedy == greedy
    assert found[3] == (0.0, 0, True)
    (ended,) = policy.log_likelihood([pairs[0]], ended=True)
    assert ended.num_tokens == found[0].num_tokens + 1
    assert ended.log_prob < found[0].log_prob


def test_text_without_a_template_is_encoded_as_one(policy):
    form, limit = policy.text.prompt_format, policy.model.config.context_length
    start = [*form.tokenizer.start_ids]
    pairs = [("Dela lives in ", "Osterby."), ("", "Osterby."), ("house " * 300, "Yes")]
    found = policy.log_likelihood(pairs, raw=True)
    whole = start + form.tokenizer.encode("Dela lives in Osterby.")
    before = start + form.tokenizer.encode("Dela lives in")
    assert whole[: len(before)] == before
    expected, _ = naive_likelihood(policy, before, whole[len(before) :])
    assert found[0].log_prob == pytest.approx(expected, abs=1e-3)
    # After nothing comes what comes after the end of a text.
    alone = form.tokenizer.encode("Osterby.")
    expected, _ = naive_likelihood(policy, start or [form.tokenizer.eos_id], alone)
    assert found[1].log_prob == pytest.approx(expected, abs=1e-3)
    text = start + form.tokenizer.encode("house " * 300 + "Yes")
    target = text[len(start + form.tokenizer.encode(("house " * 300).rstrip())) :]
    cut = text[-limit : -len(target)]
    expected, _ = naive_likelihood(policy, cut, target)
    assert found[2].log_prob == pytest.approx(expected, abs=1e-2)
    with pytest.raises(UserError, match=r"record '0'.*do not fit the model's context"):
        policy.log_likelihood([(PROMPT, "house " * 300)])


def test_nan_is_refused_by_the_name_of_the_checkpoint(policy, run):
    spoiled = jax.tree.map(lambda x: x * np.nan, policy.params)
    bad = dataclasses.replace(policy, params=spoiled)
    with pytest.raises(UserError, match=rf"^{run.workdir}/ppo/.*log-probs of sampled"):
        bad.generate([PROMPT])
    with pytest.raises(UserError, match=rf"^{run.workdir}/ppo/.*log-probs of given"):
        bad.log_likelihood([(PROMPT, "Osterby.")])


class _KilledError(Exception):
    """Stands for SIGKILL."""


def test_a_call_that_was_killed_goes_on_with_the_same_answers(
    policy, tmp_path, monkeypatch
):
    prompts = [f"Who lives in house {number}?" for number in range(20)]
    options = dict(num_samples=2, key=3, batch_size=8)
    whole = policy.generate(prompts, **options)
    generate, drawn = language_model.generate, []

    def dying(sampler, params, batches, *args, **kwargs):
        for part in generate(sampler, params, batches, *args, **kwargs):
            drawn.append(len(part))
            yield part
            if len(drawn) == 2:
                raise _KilledError

    monkeypatch.setattr(language_model, "generate", dying)
    keep = tmp_path / "kept"
    with pytest.raises(_KilledError):
        policy.generate(prompts, keep=keep, **options)
    assert drawn == [8, 8]
    assert policy.generate(prompts, keep=keep, **options) == whole
    assert drawn == [8, 8, 4]  # the third batch alone
    assert policy.generate(prompts, keep=keep, **options) == whole
    assert len(drawn) == 3
    # What follows from anything else is drawn anew.
    monkeypatch.setattr(language_model, "generate", generate)
    for other in (dict(key=4), dict(temperature=0.5), dict(num_samples=1)):
        found = policy.generate(prompts, keep=keep, **{**options, **other})
        assert found == policy.generate(prompts, **{**options, **other})
        assert found != whole


@pytest.mark.parametrize(
    ("stage", "options", "says"),
    [
        ("nowhere", {}, "no checkpoint in .*nowhere"),
        ("reward", {}, "holds a scalar model; name the workdir of a language"),
        ("ppo", {"part": "emma"}, "has no 'emma'; it has .*'ema'"),
        ("ppo", {"template": "dialogue"}, "trained with template='plain'; give that"),
        ("ppo", {"max_prompt": 190}, "prompt of 190 and a response of 24.*of 192"),
    ],
)
def test_what_does_not_fit_is_refused(run, stage, options, says):
    with pytest.raises(UserError, match=says) as error:
        LanguageModel.open(run.workdir / stage, **options)
    assert "\n" not in str(error.value)


def test_the_averaged_policy_is_taken_where_there_is_one(run, policy):
    averaged = LanguageModel.open(run.workdir / "ppo", part="")
    tiny.assert_equal(averaged.params, policy.params)
    whole = LanguageModel.open(run.workdir / "sft", part="", max_prompt=-1)
    assert whole.text.max_prompt == 192 - 24


def test_a_workdir_says_when_it_is_not_whole(run, tmp_path):
    link_stages(run, tmp_path / "recipe")
    (tmp_path / "recipe" / "sft").unlink()
    copied = shutil.copytree(run.workdir / "sft", tmp_path / "recipe" / "sft")
    (copied / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"sft/config\.json is damaged"):
        LanguageModel.open(copied)
    shutil.copy(run.workdir / "sft" / "config.json", copied)
    (tmp_path / "recipe" / "data").unlink()
    with pytest.raises(UserError, match=r"tokenizer-1280\.model"):
        LanguageModel.open(copied)
    (tokenizer,) = (run.workdir / "data").glob("*/tokenizer-*.model")
    LanguageModel.open(copied, tokenizer=str(tokenizer))
    (copied / "finished.json").unlink()
    with pytest.raises(UserError, match=r"sft is not finished"):
        LanguageModel.open(copied)


def byte_tokenizer(folder):
    """tokenizer.json with a token for each byte, and one that ends a text."""
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"]
    pipeline = tokenizers.Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, [])
    )
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    pipeline.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<end>", "pad_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(names)


def test_an_imported_model_opens_as_a_stage_does(tmp_path, capsys):
    source = tmp_path / "theirs"
    source.mkdir()
    size = byte_tokenizer(source)
    config = dataclasses.replace(
        CONFIGS["llama tied"], vocab_size=size, padded_vocab_size=0
    )
    write_folder(source, config, public_tensors(config, params_of(config)))
    convert.main(["import", str(source), str(tmp_path / "ours")])
    model = LanguageModel.open(tmp_path / "ours")
    assert model.text.max_prompt + model.text.max_response == 96
    ((text,),) = model.generate(["Who?"], temperature=0, max_response=8)
    assert isinstance(text, str)
    (found,) = model.log_likelihood([("Who? ", "Dela")], raw=True)
    assert found.num_tokens == 5  # the space too
    shutil.rmtree(tmp_path / "ours" / "tokenizer")
    with pytest.raises(UserError, match=r"ours has no tokenizer; name one"):
        LanguageModel.open(tmp_path / "ours")
    LanguageModel.open(tmp_path / "ours", tokenizer=str(source), template="dialogue")


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("Where?", "give a list of prompts"),
        ({"prompt": "Where?"}, "give a list of prompts"),
        ([3], "prompt 0: give a text, or a record with a text as `prompt`, not 3"),
        (["a", {"text": "b"}], "prompt 1: give a text"),
        ([{"prompt": "a", "history": "bc"}], "record '0': its history is 'bc'; give"),
        ([{"prompt": "a", "history": [1, 2]}], "record '0': its history is [1, 2]"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(prompts, says):
    with pytest.raises(UserError, match=re.escape(says)):
        as_records(prompts)


def test_a_history_of_null_is_none():
    (record,) = as_records([{"prompt": "a", "history": None}])
    assert list(record["history"]) == []


def test_what_is_not_asked_rightly_is_one_line(run, policy):
    reward, asks = RewardModel.open(run.workdir / "reward"), ["Where?"]
    for call, says in (
        (lambda: reward.score(asks, [["a"]]), "response 0: give a text, not ['a']"),
        (lambda: reward.score(asks, ["a", "b"]), "1 prompts and 2 responses; give"),
        (lambda: reward.score(asks, "a"), "give a list of responses"),
        (lambda: policy.log_likelihood(["abc"]), "pair 0: give (prompt, continu"),
        (lambda: policy.log_likelihood([("a", None)]), "pair 0: give (prompt"),
        (lambda: policy.generate(asks, batch_size=-1), "batch_size=-1: give 1"),
        (lambda: policy.generate(asks, batch_size=0), "batch_size=0: give 1"),
        (
            lambda: policy.log_likelihood([("a", "b")], batch_size=-1),
            "batch_size=-1: give 1",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            call()
    assert policy.generate(asks, key=np.int64(3)) == policy.generate(asks, key=3)
