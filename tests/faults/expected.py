"""How each case of `cases.py` must end."""

from typing import NamedTuple


class Expected(NamedTuple):
    """An ending: the exit code of the last command, and what the output says."""

    code: int | None  # None: any
    says: tuple[str, ...] = ()  # regular expressions, each found somewhere
    never: tuple[str, ...] = ()  # and these nowhere
    then: str = ""  # commands that are run after the case's, and look at what it left
    raises: bool = False  # whether the case itself calls what raises, in Python


def refused(*says: str) -> Expected:
    """One line that says so, and no update before it."""
    return Expected(1, tuple(f"error: .*{text}" for text in says), (r" tokens/s ",))


def runs(*says: str, never: tuple[str, ...] = ()) -> Expected:
    """The run reaches its end and says this."""
    return Expected(0, says, never)


def imports(*says: str) -> Expected:
    """A public model becomes a checkpoint that holds this."""
    return Expected(0, says, then='python -m tests.faults.describe "$OUT/base"')


def prepares(*says: str) -> Expected:
    """Published files become records that hold this."""
    return Expected(0, says, then='cat "$OUT"/data/*.jsonl')


_QUANTISED = r"quantised weights.*take the model's plain weights"
_POINTER = r"is a Git LFS pointer"
_TIED = r"tied_head=True"

EXPECTED = {
    # Public models
    "adapter_beside_the_model": imports(r"holds a language model", _TIED),
    "chatml_with_the_eos_of_a_base_model": runs(r"^2 \[1, .*, 68, 2, 201, 1, "),
    "consolidated_file_beside_the_model": imports(r"holds a language model", _TIED),
    "float8_weights_with_scales": refused(rf"F8_E4M3: {_QUANTISED}"),
    "folder_that_holds_one_gguf_file": imports(r"vocab_size=275 tied_head=False"),
    "four_bit_weights_under_other_names": refused(rf"I32: {_QUANTISED}"),
    "gguf_in_three_parts": imports(r"vocab_size=275 tied_head=False"),
    "gguf_linear_scaling_of_gptneox": imports(r"scaling=linear rotary_factor=4\.0"),
    "gguf_linear_scaling_under_the_older_key": imports(
        r"scaling=linear rotary_factor=4\.0"
    ),
    "gguf_pre_tokenizer_deepseek_r1_qwen": imports(r"\[19, 20, 21, 22, 23, 223, 269"),
    "gguf_pre_tokenizer_olmo": imports(r"\[264, 266, 23, 223, 269, 48, 9, 54\]"),
    # The weights come in; the case's second command asks for the tokenizer.
    "gguf_pre_tokenizer_some_new_name": Expected(
        0,
        (r"some-new-name.*--config\.data\.tokenizer", r"holds a language model"),
        then='python -m tests.faults.describe "$OUT/base"',
        raises=True,
    ),
    "gguf_scaling_factor_without_a_type_qwen2": imports(
        r"scaling=linear rotary_factor=4\.0"
    ),
    "gguf_table_of_rotary_frequencies": imports(
        r"rotary_scaling=llama3 rotary_factor=8\.0 rotary_base=500000"
    ),
    "gguf_without_a_pre_tokenizer": imports(r"does not tell how text is cut"),
    "gguf_without_a_pre_tokenizer_qwen2": imports(r"does not tell how text is cut"),
    "int8_weights_without_scales": refused(rf"I8: {_QUANTISED}"),
    "lfs_pointer_for_a_tokenizer": refused(rf"tokenizer\.json: {_POINTER}"),
    "lfs_pointer_for_weights": refused(rf"model\.safetensors: {_POINTER}"),
    "llama_tokenizer_without_a_bos_flag": runs(r"^2 \(1,\)"),
    "merges_eos_among_added_tokens": runs(r"^265 \(\)"),
    "nan_in_a_weight": refused(r"'model\.norm\.weight' holds NaN or infinity"),
    "older_shards_beside_a_single_file": imports(r"embedding mean -0\.0056"),
    "padding_token_beyond_the_table": imports(r"vocab_size=264"),
    "reward_model_import": imports(r"holds a scalar model"),
    "rope_parameters_by_layer_type": refused(r"config\.json: rope_parameters"),
    "rope_scaling_factor_is_null": refused(r"config\.json: rope_scaling\.factor is"),
    "rope_scaling_factor_of_zero": refused(r"rope_scaling\.factor is 0\.0"),
    "rope_scaling_factor_without_type": refused(r"rope_scaling\.factor is 4\.0"),
    "rope_scaling_is_text": refused(r'rope_scaling is "linear"'),
    "rope_scaling_linear_without_factor": refused(r"rope_scaling\.factor is missing"),
    "rope_scaling_negative_factor": refused(r"rope_scaling\.factor is -4\.0"),
    "sentencepiece_eos_among_added_tokens": runs(r"^301 \(\)"),
    "sentencepiece_eos_is_another_piece": runs(r"^1 \(\)"),
    "tied_embedding_under_the_heads_name_llama": imports(_TIED),
    "tokenizer_that_drops_line_breaks": Expected(1, (r"line break",), raises=True),
    "tokenizer_that_drops_line_breaks_with_bytes": runs(r"^True"),
    "trained_head_in_a_model_said_to_be_tied_llama": imports(r"tied_head=False"),
    "trained_head_in_a_model_said_to_be_tied_qwen2": imports(r"tied_head=False"),
    # Records
    "data_folder_given_as_a_dot": runs(r"sft +8/8"),
    "data_folder_given_as_two_dots": runs(r"sft +8/8"),
    "data_folder_with_a_blank_in_its_name": runs(r"sft +8/8"),
    "demonstrations_as_conversations": prepares(r'"prompt": "Name a colour\."'),
    "gzip_without_its_ending": refused(r"is gzip data; end its name in \.gz"),
    "id_and_customer_are_whole_numbers": prepares(r'"id": "jsonl/7".*"customer": "17"'),
    "lfs_pointer_for_records": refused(_POINTER),
    "openassistant_messages_in_place_of_trees": refused(r"trees\.jsonl"),
    "openassistant_trees_that_were_given_up": prepares(r"aborted|halted|given up"),
    "parquet_in_place_of_json_lines": refused(r"Parquet"),
    "preferences_as_chosen_and_rejected_texts": prepares(r'"ranks": \[1, 2\]'),
    "preferences_as_lists_of_roles": prepares(r'"ranks": \[1, 2\]'),
    "raw_ids_are_whole_numbers": runs(),
    "ten_records_and_no_validation_split": Expected(None, (r"--valid=0\.2",)),
    "utf_16_records": refused(r"UTF-16"),
    "utf_16_records_without_a_mark": refused(r"UTF-16"),
    # State
    "recipe_started_again_with_another_rate": refused(
        r"config\.stages\.sft\.optimizer\.learning_rate: 0\.001 -> 1\.0"
    ),
    "recipe_started_again_with_another_seed": refused(r"config\.seed: 0 -> 1"),
    "policy_and_reward_model_of_another_tokenizer": refused(
        r"(rl_init|reward): .*another tokenizer"
    ),
    "record_changed_while_a_run_was_stopped": Expected(
        1, (r"error: .*config\.data: another demonstrations\.train\.jsonl",)
    ),
    "damaged_newest_checkpoint": Expected(
        1, (r"error: .*checkpoints/\d+ is damaged: .*the one before it, \d+",)
    ),
    # Stages
    "answers_that_differ_only_beyond_the_cut": refused(
        r"in its first config\.data\.max_response=24 tokens"
    ),
    "disk_full_while_a_checkpoint_is_written": Expected(
        1, (r"error: .*/small/sft.*No space left on device.* [Mm]ake room there",)
    ),
    "evaluation_batch_on_three_devices": runs(r"ppo +2/2"),
    "every_zeroth_checkpoint": refused(r"config\.select\.every=0"),
    "file_system_whose_locks_are_not_supported": runs(r"has no locks", r"sft +8/8"),
    "file_system_without_locks": runs(r"has no locks", r"sft +8/8"),
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
