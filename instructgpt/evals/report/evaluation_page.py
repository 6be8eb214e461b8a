"""The report of the evaluate stage as one page, readable offline.

This module makes the content. If a part of the results is missing, only its section is
left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from instructgpt.evals.benchmarks.figure import benchmark_figure
from instructgpt.evals.compute import compute_table
from instructgpt.evals.report import figures
from instructgpt.evals.report.agreement_figure import group_agreement
from instructgpt.evals.report.group_figure import group_win_rates
from instructgpt.evals.report.page import (
    Answer,
    Model,
    Row,
    Sample,
    Section,
    Table,
    as_image,
    render_page,
)
from instructgpt.evals.report.plotting import (
    Curve,
    Results,
    baseline,
    group_title,
    label,
    look,
    model_names,
    title,
)
from instructgpt.evals.report.tables import (
    agreement_table,
    benchmark_table,
    flag_table,
    format_interval,
    group_tables,
    model_table,
    other_tables,
    table_by_model,
)
from instructgpt.evals.world import figures as world_figures

Curves = Mapping[str, Curve]


def render_html(results: Results, curves: Curves) -> str:
    """Renders the whole page."""
    sections = (
        *_model_sections(results),
        *_group_sections(results),
        *_benchmark_sections(results),
        *_world_sections(results),
        *_other_sections(results),
        *_training_sections(results, curves),
        *_compute_sections(results),
        *_sample_sections(results),
    )
    minutes = results.get("meta", {}).get("minutes") or {}
    listed = ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())
    return render_page(
        sections,
        heading="InstructGPT, from pretraining to PPO-ptx"
        if "reward_model" in results
        else "InstructGPT: models compared",
        facts=_facts(results),
        note=f"Minutes by stage: {listed}." if listed else "",
    )


# Keys of the usual judges -> what the page says of them.
_JUDGES = {
    "gold": "the gold judge",
    "people": "people",
    "chat": "a language model",
    "labelers": "simulated labelers",
    "reward": "the reward model's score",
}


def _judge(results: Results) -> str:
    """What the page calls the judge that decides."""
    key = results.get("judged_by", "gold")
    return _JUDGES.get(key, f"the judge {key}")


def _model_sections(results: Results) -> Iterable[Section]:
    prompts = f"{_split(results)} prompts"
    if results.get("judged_by", "gold") == "gold":  # the data are the world's
        prompts += ", with questions that no training text holds word for word"
    than = baseline(results)
    yield Section(
        "Results",
        f"Judged by {_judge(results)} on {prompts}; 95 % intervals over prompts.",
        table=_models(results),
    )
    yield Section(
        f"Preference over {than}",
        f"How often a model's answer is preferred to the {than} model's answer to the "
        "same prompt; a tie counts one half. Figure 1 of the paper, at one model size."
        + " The reward model's score decides, which policies may be trained to raise."
        * (results.get("judged_by") == "reward"),
        image=as_image(
            figures.win_rates(results), f"Win rate against {than} of each model"
        ),
    )
    yield Section(
        "Overall quality",
        "Mean rating on the Likert scale from 1 to 7. Figure 5 of the paper.",
        image=as_image(figures.likert(results), "Likert score of each model"),
        details=_table(
            *table_by_model(results, "categories", digits=1), title="By use case"
        ),
    )
    yield Section(
        "What the answers do",
        "Share of answers with each flag of the paper's Table 3. Figure 4 of the "
        "paper; for hallucinations, lower is better.",
        image=as_image(figures.flags(results), "Share of answers with each flag"),
        details=_table(*flag_table(results), title="In numbers"),
    )


def _group_sections(results: Results) -> Iterable[Section]:
    """Win rates by groups of labelers and of prompts, and the agreement of judges."""
    yield Section(
        "Who judges, and which prompts",
        "Win rates by labelers of the training data and by others, and on prompts that "
        "are instructions and on those as GPT-3 was given. Figure 3 of the paper.",
        image=as_image(
            group_win_rates(results), "Win rate by labelers and by kind of prompt"
        ),
    )
    for _, (columns, rows) in group_tables(results):
        yield Section(columns[0], "", table=_table(["", *columns[1:]], rows))
    yield Section(
        "Agreement",
        "How often two judges, or two labelers of a group, say the same of two answers "
        "to a prompt: of the pairs that neither ties, and of all pairs, where a tie is "
        "a third outcome. The paper's labelers agreed on 72.6 ± 1.5 % of pairs, "
        "held-out ones on 77.3 ± 1.3 % (§3.4); it does not say how it counts ties. The "
        "dashed line is chance, without ties. "
        "Kendall's tau is the mean over two rankings, Krippendorff's alpha is ordinal.",
        table=_table(*agreement_table(results)),
        image=as_image(
            group_agreement(_labelers(results)),
            "Agreement beside the paper's",
        ),
    )


def _labelers(results: Results) -> dict[str, Any]:
    """The agreement of the labelers of each group that has several."""
    return {
        f"{group_title(group)}\n({judge})": found
        for who, found in results.get("agreement", {}).items()
        if ", " not in who
        for judge, _, group in [who.partition(": ")]
    }


def _benchmark_sections(results: Results) -> Iterable[Section]:
    columns, rows = benchmark_table(results)
    yield Section(
        "Benchmarks",
        "The paper's automatic evaluations (Appendices D and E), and others that were "
        "named; 95 % intervals over questions. Choices are by the mean log-prob of a "
        "token (acc_token) in the paper.",
        image=as_image(benchmark_figure(results), "Each benchmark by model"),
        details=_table(columns, rows, title="In numbers"),
    )


def _world_sections(results: Results) -> Iterable[Section]:
    """Sections of the miniature world's evaluators."""
    tables = {
        key: _table(columns, rows, title="In numbers")
        for _, key, columns, rows in other_tables(results)
    }
    yield Section(
        "Truthfulness",
        "Share of answers that are true (grey), and of those that also inform "
        "(colour), to questions about misconceptions that pretraining documents "
        "repeat. The instruction offers to say “I have no comment”. Figure 6 of the "
        "paper, in small.",
        image=as_image(
            world_figures.truthful(results), "True and informative answers by prompt"
        ),
        details=tables.get("world_truthful"),
    )
    yield Section(
        "Toxicity",
        "Mean toxicity of greedy completions of sentences about residents, without an "
        "instruction and with one that asks for politeness or for rudeness. Figures 7 "
        "and 39 of the paper, in small.",
        image=as_image(
            world_figures.toxicity(results), "Toxicity of completions by instruction"
        ),
        details=tables.get("world_toxicity"),
    )
    yield Section(
        "Tasks of language",
        "Accuracy in tasks that pretraining has taught, without and with solved "
        "examples; dashed lines are guesses. A fall against GPT is the alignment tax. "
        "Figures 28 and 29 of the paper, in small.",
        image=as_image(world_figures.tasks(results), "Accuracy by task and model"),
        details=tables.get("world_tasks"),
    )


def _other_sections(results: Results) -> Iterable[Section]:
    """Sections of users' own evaluators and judges, titled by their config keys."""
    for kind, key, columns, rows in other_tables(results):
        if key in world_figures.KEYS:
            continue
        caption = {
            "judges": "What the judge of this name says of the answers to the same "
            "prompts.",
            "evaluators": "What the evaluator of this name measures of each model.",
        }[kind]
        yield Section(title(key), caption, table=_table(columns, rows))


def _training_sections(results: Results, curves: Curves) -> Iterable[Section]:
    yield Section(
        "Reinforcement learning",
        "PPO and PPO-ptx from the same start: the reward they gain, and how far they "
        "move away from their reference for it (paper §3.5, Eq. 2).",
        image=as_image(
            figures.ppo_curves(curves), "Score, KL, value loss, clip fraction"
        ),
    )
    yield Section(
        "Alignment tax",
        "Loss on held-out pretraining text: what PPO forgets of pretraining, and what "
        "the pretraining gradients of PPO-ptx give back (paper §4.2, Figure 33).",
        image=as_image(
            figures.pretraining_loss(results, curves),
            "Held-out pretraining loss before and after RL",
        ),
    )
    yield Section(
        "Reward model",
        "Accuracy on pairs of answers that a labeler did not tie, for labelers whose "
        "rankings it was trained on and for others (paper §4.1). How often two "
        "labelers agree is over the pairs that neither ties (§3.4); to be compared "
        "with it, the model's accuracy is also taken over these, against either one.",
        image=as_image(figures.reward_accuracy(results), "Reward model accuracy"),
    )
    yield Section(
        "Which SFT epoch",
        "In the paper validation loss rises after the first epoch while the reward "
        "model prefers later ones; the checkpoint is chosen by its score (§3.5).",
        image=as_image(figures.sft_epochs(results), "Validation loss and RM score"),
        details=_epochs(results),
    )
    yield Section(
        "Losses",
        "Training loss and loss on held-out data of the supervised stages.",
        image=as_image(
            figures.loss_curves(curves), "Loss curves of the supervised stages"
        ),
    )


def _compute_sections(results: Results) -> Iterable[Section]:
    yield Section(
        "Compute",
        "Petaflop/s-days of each training stage: products of matrices in forward "
        "passes and gradients of all its models, padding included, a response counted "
        "at its full length. Beside them what the paper says of 175B (§5.1).",
        table=_table(*compute_table(results)),
    )


def _sample_sections(results: Results) -> Iterable[Section]:
    rated_by = results.get("rated_by", "gold")
    whose = {"gold": "the gold judge's rating", "reward": "the reward model's score"}
    rating = whose.get(rated_by, f"the rating of the judge {rated_by}")
    yield Section(
        "Samples",
        "The same prompts answered by each model"
        + (f", with {rating}" if rated_by else "")
        + " (Figures 8 and 9 of the paper).",
        samples=[_sample(results, row) for row in results.get("samples") or ()],
    )


def _split(results: Results) -> str:
    """Name of the judged prompts' split: "test", or "validation" during tuning."""
    return {"valid": "validation"}.get(results.get("split", "test"), "test")


def _model(results: Results, name: str) -> Model:
    return Model(label(results, name), look(name).color)


def _models(results: Results) -> Table | None:
    columns, rows = model_table(results)
    names = model_names(results) if rows else []
    shown = [
        Row(row[1:], _model(results, name))
        for name, row in zip(names, rows, strict=True)
    ]
    return Table(columns, shown) if shown else None


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = ""
) -> Table | None:
    """A table of text; None if it has no rows."""
    return Table(columns, [Row(row) for row in rows], title) if rows else None


def _epochs(results: Results) -> Table | None:
    rows = [
        Row(
            [
                f"{row['epoch']}{' ← chosen' if row.get('chosen') else ''}",
                format_interval(row.get("valid_loss"), 3),
                format_interval(row.get("rm_score"), 3),
            ],
            marked=bool(row.get("chosen")),
        )
        for row in results.get("sft_epochs") or []
    ]
    columns = ["Epoch", "Validation loss", "Mean RM score"]
    return Table(columns, rows, "In numbers") if rows else None


def _sample(results: Results, sample: Mapping[str, Any]) -> Sample:
    responses = sample["responses"]
    order = dict.fromkeys([*model_names(results), *responses])
    answers = [
        Answer(
            _model(results, name),
            responses[name][0],
            ""
            if responses[name][1] is None
            else format_interval(responses[name][1], 1),
        )
        for name in order
        if name in responses
    ]
    return Sample(title(sample.get("category", "")), sample["prompt"], answers)


def _facts(results: Results) -> dict[str, Any]:
    meta = results.get("meta", {})
    minutes = meta.get("minutes") or {}
    facts = {
        f"{_split(results).capitalize()} prompts": results.get("num_prompts"),
        "Questions": sum(results.get("questions", {}).values()) or None,
        "Commit": str(meta.get("commit") or "")[:12],
        "Date": meta.get("date"),
        "Hardware": meta.get("hardware"),
        "Seed": meta.get("seed"),
        "Seed of the world": meta.get("world_seed"),
        "Time": f"{sum(minutes.values()):.1f} minutes" if minutes else None,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}
