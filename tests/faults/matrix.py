"""Every fault that this project has an answer to: what must happen, and the tests that hold it.

The tests stand where their subject stands; this is the list of them. What waits for code that is not there says why.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """A row of the matrix."""

    number: int
    name: str
    expected: str
    held_by: tuple[str, ...] = ()
    """Ids of tests, without parameters, relative to the root of the project."""

    waits: str = ""
    """Why there is nothing to test yet."""


def tests(file: str, *names: str) -> tuple[str, ...]:
    """Return the ids of tests of one file below tests/."""
    return tuple(f"tests/{file}.py::{name if name.startswith('Test') else f'test_{name}'}" for name in names)


KILLS, DISK, FLIPS = "faults/test_kills", "faults/test_disk", "faults/test_flips"
HINDERED, PEERS = "faults/test_hindered", "faults/test_peers"

MATRIX = (
    Fault(
        1,
        "truncated, empty or garbage tile",
        "skipped, named, exit code 3; the other rows are as they were",
        tests("tiles/test_decoding", "truncated_files_are_refused", "what_is_no_image_is_refused")
        + tests("test_extract", "bad_tiles_are_marked_and_named")
        + tests("test_prepare", "every_kind_of_bad_file_at_once"),
    ),
    Fault(
        2,
        "tile that changed after the manifest was made",
        "marked as changed, or no pixel of it is another",
        tests(FLIPS, "p4_a_flipped_bit_in_a_tile_is_found_or_changes_no_pixel")
        + tests("network/test_batches", "bad_tiles_become_problems"),
    ),
    Fault(
        3,
        "decompression bomb",
        "refused at once, in little memory",
        tests("attacks/test_images", "a_bomb_is_refused_at_once_and_in_little_memory")
        + tests("tiles/test_decoding", "too_large_images_and_bombs_are_refused"),
    ),
    Fault(
        4,
        "another format under a tile's name",
        "refused, whatever the name says",
        tests("attacks/test_images", "another_format_under_a_tiles_name")
        + tests("tiles/test_decoding", "an_animated_gif_named_png_is_refused"),
    ),
    Fault(
        5,
        "odd colour modes, depths and orientations",
        "8-bit RGB as documented, or refused",
        tests(
            "tiles/test_decoding",
            "grey_and_1_bit_become_rgb",
            "palette_with_and_without_transparency",
            "transparency_is_laid_on_white",
            "cmyk_is_converted",
            "16_bit_png_is_refused",
            "deep_tiff_is_refused",
            "exif_orientation_is_applied",
        ),
    ),
    Fault(
        6,
        "odd sizes and numbers of tiles",
        "resized, warned of or refused; no batch of one in training",
        tests("network/test_batches", "tiles_are_resized", "no_batches")
        + tests("network/test_training", "a_last_batch_of_one_tile_is_left_out")
        + tests("test_prepare", "mixed_sizes_and_modes_are_warned_of", "one_tile_in_a_class")
        + tests("test_train", "a_split_without_tiles")
        + tests("tiles/test_datasets", "folders_without_tiles_are_refused"),
    ),
    Fault(
        7,
        "names that climb, lead elsewhere, or are no text",
        "nothing is written or read outside; names are kept or refused",
        tests(
            "attacks/test_paths",
            "a_manifest_that_leads_out_of_its_root",
            "a_folder_of_the_run_that_is_a_link",
            "a_scratch_that_is_a_link",
            "every_path_of_a_csv_becomes_one_below_its_root",
            "names_no_file_system_takes_leave_nothing",
            "strange_names_in_a_csv_are_unreadable_tiles_and_nothing_else",
        )
        + tests("attacks/test_text", "names_in_a_whole_report", "formulas_in_the_ranking_of_label_errors")
        + tests("tiles/test_manifest", "round_trip_of_any_text"),
    ),
    Fault(
        8,
        "the same tile twice, or in two splits",
        "an error that names both",
        tests("test_prepare", "p7_the_same_pixels_in_train_and_test_name_both")
        + tests("tiles/test_audit", "p7_equal_pixels_in_two_splits_are_an_error_that_names_both")
        + tests("tiles/test_manifest", "tile_ids_are_always_unique"),
    ),
    Fault(
        9,
        "group in two splits, class missing in one, too few groups",
        "refused, with the group or class named",
        tests(
            "tiles/test_split",
            "p7_grouped_split_keeps_groups_whole_and_train_complete",
            "classes_that_cannot_all_be_in_train_are_named",
            "too_few_groups_are_an_error_that_says_what_to_do",
        )
        + tests("tiles/test_plan", "no_group_crosses_a_split_and_every_tile_is_tested_once_per_seed")
        + tests("test_prepare", "p7_no_group_stands_in_two_splits_unless_random_was_chosen", "too_few_groups"),
    ),
    Fault(
        10,
        "unknown label, classes in another order",
        "an error; probabilities follow the classes of the file",
        tests("test_extract", "a_label_that_the_model_does_not_know")
        + tests("test_fit_heads", "softmax_rows_are_the_softmax_of_the_stored_logits_over_the_temperature")
        + tests("fuzz/test_readers", "any_names_survive_hdf5_and_predictions"),
    ),
    Fault(
        11,
        "pixels that are no numbers",
        "cannot come to be: pixels are bytes up to the network, also after a corruption",
        tests(
            "tiles/test_corruptions",
            "every_corruption_is_deterministic_and_leaves_its_input_alone",
            "the_ends_of_the_scale_do_not_wrap_around",
        ),
    ),
    Fault(
        12,
        "a loss or weight that is not finite",
        "exit code 1, the last good checkpoint stays, nothing of it is saved",
        tests(
            "network/test_training",
            "a_loss_that_is_not_finite_keeps_the_last_good_epoch",
            "a_loss_that_is_not_finite_is_never_saved",
            "weights_that_are_not_finite_are_never_saved",
            "a_validation_loss_that_is_not_finite",
        )
        + tests("test_train", "a_training_that_diverges_is_one_line"),
    ),
    Fault(
        13,
        "an embedding that is not finite",
        "extract stops and names the tile; no head sees it",
        tests("test_extract", "an_embedding_that_is_not_finite_names_the_tile")
        + tests("network/test_embedding", "a_feature_that_is_not_finite_names_the_tile")
        + tests("storage/test_embeddings", "a_file_that_breaks_a_rule_is_refused"),
    ),
    Fault(
        14,
        "memory of the GPU full",
        "extract halves its pass and keeps the rows; train ends in one line",
        tests(
            "network/engines/test_engines",
            "a_full_memory_halves_the_pass_and_keeps_the_rows",
            "an_odd_batch_is_halved_down_to_one",
            "a_memory_that_does_not_hold_one_tile_is_one_line",
        )
        + tests("test_extract", "a_full_memory_costs_no_row_and_the_record_says_so")
        + tests("test_train", "a_step_that_the_memory_does_not_hold_is_one_line", "a_full_memory_is_one_line"),
    ),
    Fault(
        15,
        "memory of the machine full",
        "exit code 1, one line, nothing lost",
        tests(HINDERED, "a_machine_without_memory_is_one_line_and_keeps_what_was_there")
        + tests("heads/test_svm", "rows_that_do_not_fit_into_memory_are_refused_before_the_search")
        + tests("network/test_checkpoint", "a_full_memory_is_no_damage"),
    ),
    Fault(
        16,
        "a decoder that raises anything",
        "the tile's problem, with its name; a bug of ours is not hidden",
        tests("tiles/test_decoding", "any_exception_of_the_parser_is_bad_tile")
        + tests("network/test_batches", "a_bug_is_not_taken_for_a_dead_worker"),
    ),
    Fault(
        17,
        "kill -9 of a process that decodes tiles",
        "exit code 1, one line; the rows and steps before it are kept",
        tests("test_extract", "a_worker_that_dies_or_hangs_is_one_line_and_costs_no_row")
        + tests(
            "network/test_batches",
            "a_killed_worker_is_one_line",
            "a_death_waits_until_the_caller_asks_for_more",
            "loading_goes_on_after_a_worker_was_lost",
        )
        + tests("network/test_training", "a_lost_worker_costs_nothing"),
    ),
    Fault(
        18,
        "a process that decodes tiles hangs",
        "as when it dies, after a time limit",
        tests("network/test_batches", "a_hung_worker_is_one_line"),
    ),
    Fault(
        19,
        "kill -9 of extract, fit_heads and predict at random moments",
        "no file or a whole one; the same command ends in the same hashes",
        tests(KILLS, "p2_kills_of_extract_end_in_the_same_hashes", "p2_kills_of_fit_heads_end_in_the_same_hashes")
        + tests("test_extract", "two_kills_in_the_midst_of_a_row_end_in_the_same_rows", "a_torn_scratch_recovers")
        + tests("test_extract_slides", "kills_at_any_moment_end_in_the_same_rows")
        + tests("test_predict", "a_map_that_was_killed_at_any_moment_is_made_whole")
        + tests("fuzz/test_scratch_machine", "TestExtraction::runTest"),
    ),
    Fault(
        20,
        "kill -9 or loss of power at each step of writing",
        "old or new, never mixed; the same command heals it",
        tests(KILLS, "p1_a_death_at_any_step_of_writing_leaves_old_or_new")
        + tests(
            "storage/test_artifacts",
            "p1_an_error_leaves_the_old_content_and_no_temporary",
            "p1_a_kill_while_writing_leaves_the_old_and_its_rubbish_is_removed",
        ),
    ),
    Fault(
        21,
        "kill -9, SIGTERM, Ctrl-C in training",
        "the same model as without; SIGTERM saves and exits with 143",
        tests(KILLS, "p2_kills_of_train_end_in_the_same_hashes")
        + tests("test_train", "a_signal_to_the_whole_group_saves", "an_interruption_continues_to_the_same_model")
        + tests("network/test_training", "a_stop_after_any_step_continues_to_the_same_result"),
    ),
    Fault(
        22,
        "full disk, in every writer",
        "exit code 1, one line, no torso, no crash; the same command goes on with room",
        tests(DISK, "p1_a_full_disk_is_one_line_and_leaves_no_torso")
        + tests("storage/test_hdf5", "a_disk_that_is_full_after_some_writes_is_told_and_nothing_else_happens")
        + tests("storage/test_artifacts", "no_space_is_disk_full_and_leaves_the_old")
        + tests("storage/test_scratch", "a_full_disk")
        + tests("storage/test_models", "a_full_disk_leaves_the_former_model")
        + tests("network/test_training", "a_full_disk_leaves_the_former_checkpoint")
        + tests("test_train", "a_disk_that_is_really_full_keeps_the_former_checkpoint")
        + tests("tiles/test_download", "a_full_disk_keeps_what_came"),
    ),
    Fault(
        23,
        "run folder that may not be written to, or is none",
        "exit code 1 before anything is computed",
        tests(
            DISK,
            "p1_a_folder_that_may_not_be_written_to_is_one_line",
            "a_run_folder_without_the_right_to_write",
        )
        + tests("cli/test_command", "a_run_that_is_a_file_is_one_line"),
    ),
    Fault(
        24,
        "two commands on one run",
        "the second ends at once and names the first; after a kill -9 the run is free",
        tests(
            HINDERED,
            "a_second_command_ends_at_once_and_names_the_first",
            "a_run_whose_holder_was_killed_is_taken_over",
        )
        + tests(
            "storage/test_lock",
            "a_second_process_is_refused_and_told_the_pid",
            "refused_attempts_do_not_wipe_the_holders_name",
            "kill_9_of_the_holder_frees_the_run",
        ),
    ),
    Fault(
        25,
        "one flipped bit in any file of a run",
        "found before anything is made of it",
        tests(
            FLIPS,
            "p1_a_flipped_bit_in_an_artefact",
            "p8_a_flipped_bit_beside_an_artefact",
            "p1_the_next_command_refuses_it_in_one_line",
        )
        + tests("network/test_checkpoint", "one_flipped_bit_is_found_or_changes_nothing")
        + tests("storage/test_scratch", "one_flipped_bit_is_seen", "one_flipped_bit_in_the_header_is_seen")
        + tests("test_main", "one_changed_byte_is_found_and_the_file_named"),
    ),
    Fault(
        26,
        "HDF5 that breaks a rule of its schema",
        "refused with the rule; unknown keys are tolerated",
        tests(
            "storage/test_embeddings",
            "a_file_that_breaks_a_rule_is_refused",
            "a_truncated_file",
            "what_the_schema_does_not_know_is_tolerated",
        )
        + tests("storage/test_baselines", "a_file_that_breaks_a_rule_is_refused"),
    ),
    Fault(
        27,
        "files of earlier releases",
        "readable for ever",
        waits="no version was released; its files belong into tests/data/formats",
    ),
    Fault(
        28,
        "an input that changed since",
        "refused, naming both hashes and the stage to run",
        tests("storage/test_records", "p8_a_stale_input_is_found_through_every_link")
        + tests("test_extract", "a_model_of_another_manifest_is_stale", "rows_of_another_model_are_refused")
        + tests(
            "test_fit_heads",
            "stale_or_damaged_embeddings_are_refused",
            "a_head_of_embeddings_that_changed_meanwhile_gets_no_record",
        )
        + tests(
            "storage/test_inputs",
            "an_input_that_changed_while_it_was_in_use_is_refused",
            "an_input_that_is_replaced_while_it_is_hashed_is_refused",
        )
        + tests("test_main", "stale_embeddings_after_retraining_are_refused_and_remade"),
    ),
    Fault(
        29,
        "a pickle, or a foreign type in a skops file",
        "refused, nothing of it runs",
        tests(
            "attacks/test_pickles",
            "a_pickle_is_refused_and_not_run",
            "a_checkpoint_is_refused_and_not_run",
            "the_files_of_these_tests_are_harmful",
        )
        + tests("attacks/test_heads", "foreign_types_in_a_skops_file", "trusted_types_that_make_no_head"),
    ),
    Fault(
        30,
        "damaged XGBoost model",
        "one line; XGBoost itself, which crashes over some, never sees it",
        tests(
            "heads/test_boosting",
            "a_changed_head_is_refused_before_xgboost_sees_it",
            "files_without_a_record_are_refused_in_one_line",
        )
        + tests("attacks/test_pickles", "xgboost_never_sees_a_file_without_a_record"),
    ),
    Fault(
        31,
        "malformed safetensors",
        "refused, in little memory",
        tests(
            "attacks/test_models",
            "a_malformed_safetensors_file",
            "tensors_of_another_network",
            "weights_that_claim_much_take_little",
        ),
    ),
    Fault(
        32,
        "head saved by another scikit-learn",
        "refused across minor versions, naming both",
        tests("heads/test_svm", "a_head_of_another_scikit_learn"),
    ),
    Fault(
        33,
        "a head that does not converge, or rows of one class",
        "said in heads.json, or refused",
        tests("heads/test_svm", "notes_tell_how_it_was_fitted")
        + tests("heads/test_landmarks", "a_regression_that_takes_all_its_steps_says_so")
        + tests("test_fit_heads", "rows_of_one_class_to_fit_on_are_refused"),
    ),
    Fault(
        34,
        "another order, batch, number of workers",
        "the same row for each tile, but for rounding",
        tests("fuzz/test_batching", "a_row_is_the_tiles_own")
        + tests("test_extract", "rows_are_the_tiles_whatever_the_workers")
        + tests("network/test_training", "workers_and_memory_do_not_change_the_result"),
    ),
    Fault(
        35,
        "the same seed twice",
        "the same bytes",
        tests("test_main", "the_same_seed_gives_the_same_results")
        + tests("test_prepare", "p6_the_same_command_gives_the_same_bytes")
        + tests("heads/test_skops_bytes", "two_processes_write_the_same_bytes")
        + tests("test_train", "deterministic_asks_torch_for_repeatable_kernels_and_changes_nothing_on_a_cpu"),
    ),
    Fault(
        36,
        "HDF5 file open in two processes",
        "cannot come to be: files are read whole and closed before any worker starts",
        tests("storage/test_hdf5", "no_file_stays_open"),
    ),
    Fault(
        37,
        "damaged or odd slide",
        "an error of one line, or tiles marked as unreadable; the other slides are embedded",
        tests(
            "tiles/test_slides",
            "damage_is_told_and_the_rest_is_still_read",
            "what_cannot_be_opened",
            "an_uncompressed_tiff_larger_than_memory_is_not_loaded",
            "a_compressed_picture_larger_than_pillow_takes_is_refused",
            "a_huge_slide_without_a_small_level_is_refused",
        )
        + tests(
            "attacks/test_slides",
            "a_slide_in_one_huge_block_is_refused_before_it_is_decoded",
            "a_slide_that_claims_to_be_larger_than_any_is_refused",
        )
        + tests("test_tile", "what_is_refused_in_one_line", "one_bad_slide_does_not_stop_the_rest")
        + tests("test_extract_slides", "one_bad_slide_does_not_stop_the_rest"),
    ),
    Fault(
        38,
        "stain estimation on a white tile",
        "the tile passes unharmed",
        tests("tiles/test_corruptions", "the_ends_of_the_scale_do_not_wrap_around")
        + tests("tiles/test_handcrafted_features", "every_tile_gives_finite_numbers_without_a_warning"),
    ),
    Fault(
        39,
        "an archive handed as data",
        "refused with advice; bombs and names that climb as well",
        tests("attacks/test_paths", "a_run_in_an_archive_is_not_unpacked_for_its_user")
        + tests("tiles/test_datasets", "find_tiles_refuses_what_is_neither")
        + tests("tiles/test_unpack", "refuses_a_bomb_by_its_ratio", "refuses_names_that_leave_the_folder"),
    ),
    Fault(
        40,
        "wrong option or configuration file",
        "exit code 2, the nearest name, nothing written",
        tests("cli/test_options", "a_wrong_command_line_exits_with_2", "errors_in_toml_are_one_line")
        + tests("cli/test_command", "nothing_is_written_on_a_usage_error"),
    ),
    Fault(
        41,
        "another locale, encoding, time zone; a clock that jumps",
        "the same bytes; times are UTC",
        tests(
            HINDERED,
            "locale_encoding_and_time_zone_change_nothing",
            "names_of_other_scripts_in_an_ascii_terminal",
            "a_clock_that_jumps_back_changes_nothing",
        ),
    ),
    Fault(
        42,
        "no network",
        "none is needed; a download that cannot be had is one line",
        tests(HINDERED, "no_command_of_these_tests_has_a_network")
        + tests("test_network", "no_test_asks_another_machine")
        + tests("test_train", "bad_start_weights_are_one_line")
        + tests(
            "network/test_imagenet",
            "without_a_network_it_is_one_line_that_says_what_belongs_where",
            "another_file_in_the_cache_is_refused",
        )
        + tests("tiles/test_download", "no_server_gives_one_clear_line_and_keeps_the_partial"),
    ),
    Fault(
        43,
        "one of several training processes dies",
        "the others end with one line; the same command ends in the same bytes",
        tests(
            "network/test_ranks",
            "the_death_of_one_ends_all_in_one_line_and_costs_nothing",
            "only_what_speaks_of_other_processes_is_taken_for_a_death",
            "a_stop_saves_once_and_one_process_can_go_on",
            "what_all_find_wrong_is_said_once",
        ),
    ),
    Fault(
        44,
        "a report on no test rows, one class, one group, ties",
        "the reason stands where the figure would",
        tests(
            "test_report",
            "no_test_rows",
            "one_test_class_and_an_absent_class_print_as_not_available",
            "one_test_group_gives_no_interval_and_no_conclusion",
            "heads_without_an_error",
        ),
    ),
    Fault(
        45,
        "seen in TRIDENT: a half-written HDF5 file passes for finished",
        "neither current nor read; extract makes it whole",
        tests(PEERS, "p1_a_half_written_hdf5_is_not_finished"),
    ),
    Fault(
        46,
        "seen in THUNDER: a second run doubles the rows",
        "the same rows, each once",
        tests(PEERS, "p2_a_second_run_doubles_no_row"),
    ),
    Fault(
        47,
        "seen in slide readers: what cannot be read becomes white",
        "named, marked, embedded by nothing, predicted by no head",
        tests(PEERS, "p4_an_unreadable_tile_is_no_white_tile")
        + tests("test_extract_slides", "what_cannot_be_decoded_is_marked_and_never_white"),
    ),
    Fault(
        48,
        "missing, doubled or foreign shard",
        "named in one line before any row is copied; nothing is written",
        tests(
            "test_merge",
            "missing_and_doubled_shards_are_named",
            "shards_of_another_division_or_another_manifest",
            "rows_that_are_not_the_manifests",
            "a_changed_byte_and_a_stale_model",
            "a_shard_knows_its_rows_and_is_taken_for_nothing_else",
        ),
    ),
    Fault(
        49,
        "shards of several models, engines or settings",
        "refused, naming which; engines and versions by --force, and the record says so",
        tests("test_merge", "shards_that_were_made_otherwise", "mixed_engines_are_refused_and_recorded_by_force"),
    ),
    Fault(
        50,
        "full disk or kill -9 of merge",
        "what stood there stays; the same command makes it",
        tests("test_merge", "p1_a_full_disk_leaves_no_torso", "p2_a_merge_that_was_killed_is_made_again"),
    ),
    Fault(
        51,
        "shard of a virtual file missing or another, for which HDF5 gives fill values",
        "refused by every reader; other programs get NaN",
        tests(
            "test_merge",
            "p1_a_virtual_file_whose_shard_is_missing_or_another_is_refused",
            "names_in_a_virtual_file_lead_nowhere_else",
        ),
    ),
    Fault(
        52,
        "shards at the same time on one run, one of them killed; arms of an ablation at the same time on one plan",
        "none takes or removes what is another's; the same command continues",
        tests("test_merge", "shards_share_the_run_but_not_their_file", "p2_a_shard_that_was_stopped_continues")
        + tests("storage/test_lock", "several_may_share_a_run_but_none_beside_a_holder")
        + tests("test_extract_jointly", "p2_the_death_of_one_ends_all_and_the_same_command_goes_on")
        + tests(
            "test_ablate",
            "arms_share_the_plan_which_the_plain_command_holds_alone",
            "an_arm_that_another_process_runs_has_not_failed",
            "networks_that_change_while_they_are_copied_are_refused",
        ),
    ),
    Fault(
        53,
        "kill -9 of fit_heads while it streams rows that do not fit into memory",
        "the same command ends in the same heads; what lay on disk is removed",
        tests(
            "test_fit_heads_streamed",
            "p2_kills_in_the_midst_of_a_pass_end_in_the_same_heads",
            "what_a_killed_command_left_is_removed_by_the_next",
        ),
    ),
    Fault(
        54,
        "no room for the bins and kernel values of rows that do not fit into memory",
        "one line, before XGBoost ends the process",
        tests("test_fit_heads_streamed", "p1_no_room_for_what_is_kept_on_disk_is_one_line")
        + tests(
            "heads/test_streamed",
            "the_size_of_the_bins_on_disk_is_known_before",
            "too_little_disk_is_said_before_anything_is_written",
        )
        + tests("storage/test_artifacts", "room_that_a_quota_or_limit_takes_is_missed_before"),
    ),
    Fault(
        55,
        "a worker of a cluster is lost",
        "another does its task; where all are needed, one line, fitted heads are kept, and the same command goes on",
        tests(
            "heads/test_cluster",
            "the_task_of_a_lost_worker_is_done_by_another",
            "a_worker_that_is_lost_in_a_training_of_all_ends_it_in_one_line",
            "a_task_that_ends_every_worker_is_one_line",
        )
        + tests("test_fit_heads_cluster", "a_worker_lost_in_the_midst_of_training_loses_nothing"),
    ),
    Fault(
        56,
        "a cluster that does not answer, or has other versions",
        "one line within seconds",
        tests("test_fit_heads_cluster", "an_address_that_does_not_answer_is_one_line")
        + tests("heads/test_cluster", "workers_with_other_versions_are_refused"),
    ),
    Fault(
        57,
        "rows that take more memory than was stated",
        "read block by block, within it; a budget too small for a block is one line",
        tests(
            "test_fit_heads_streamed",
            "memory_stays_under_what_was_stated_where_fitting_in_memory_takes_more",
            "memory_too_small_for_a_block_is_one_line",
        )
        + tests("heads/test_streamed", "a_budget_is_enough_for_all_for_blocks_or_for_nothing"),
    ),
)
