"""How each case of `cases.py` must end."""

from typing import NamedTuple


class Expected(NamedTuple):
    """An ending: the exit code of the last command, and what the output says."""

    code: int | None  # None: any
    says: tuple[str, ...] = ()  # regular expressions, each found somewhere
    never: tuple[str, ...] = ()  # and these nowhere


def refused(*says: str) -> Expected:
    """One line that says so, and no update before it."""
    return Expected(1, tuple(f"error: .*{text}" for text in says), (r" tokens/s ",))


def runs(*says: str, never: tuple[str, ...] = ()) -> Expected:
    """To the end, saying this."""
    return Expected(0, says, never)


EXPECTED = {
    "answers_that_differ_only_beyond_the_cut": refused(
        r"in its first config\.data\.max_response=24 tokens"
    ),
    "evaluation_batch_on_three_devices": runs(r"ppo +2/2"),
    "every_zeroth_checkpoint": refused(r"config\.select\.every=0"),
    # Its last command lists the exported folder.
    "export_started_from_another_folder": runs(
        r"\nmodel\.safetensors\ntokenizer\.json\n", never=("names no tokenizer",)
    ),
    "held_out_rankings_that_are_all_ties": runs(r"tie", never=(r"\bnan\b",)),
    "log_every_of_zero": runs(r"sft +\d+/\d+"),
    "microbatches_of_zero": refused(r"config\.train\.microbatches=0"),
    "negative_number_of_epochs": refused(r"config\.train\.num_epochs=-1"),
    "no_samples_asked_for_in_sft": runs(r"sft +\d+/\d+", never=(r"response at step",)),
    "paths_relative_to_the_current_folder": runs(
        r"sft +\d+/\d+", r"\nmodel\.safetensors\ntokenizer\.json\n"
    ),
    "policy_microbatches_of_zero": refused(r"config\.ppo\.microbatches=0"),
    # Its last command lists the samples, of each evaluation one file.
    "ppo_evaluates_after_every_epoch": runs(r"1\.\w+\n.*2\.\w+\n.*3\.\w+\n"),
    "ppo_on_prompts_alone": runs(r"ppo +2/2"),
    "ppo_on_prompts_and_training_documents": runs(r"ppo +2/2"),
    "prompts_left_out_in_silence_by_select": runs(r"8 of 16 valid prompts .*left out"),
    "reward_model_with_validation_demonstrations_alone": runs(r"not shifted"),
    "reward_model_without_demonstrations": runs(r"not shifted"),
}
