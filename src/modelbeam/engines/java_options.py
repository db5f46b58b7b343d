"""Options that the Java side of Flink's and Spark's runners knows, beside Beam's Python ones.

Facts taken from what the job servers of Beam 2.70 (Flink) and 2.62 (Spark) answer to
``DescribePipelineOptions``.
"""

from __future__ import annotations

_FLINK = """
    app_name auto_watermark_interval avro_serializable_classes
    bundle_processor_cache_timeout checkpoint_timeout_millis checkpointing_interval
    checkpointing_mode default_environment_config default_environment_type
    default_sdk_harness_log_level element_processing_timeout_minutes
    environment_cache_millis environment_expiration_millis environment_options
    execution_mode_for_batch execution_retry_delay experiments file_input_split_max_size_m_b
    files_to_stage flink_conf_dir flink_master g_c_thrashing_percentage_per_period gbek
    grouping_table_max_size_mb jdk_add_open_modules jdk_add_root_modules
    job_check_interval_in_secs job_endpoint job_name job_server_timeout
    latency_tracking_interval max_bundle_size max_bundle_time_mills
    max_cache_memory_usage_mb max_cache_memory_usage_mb_class max_cache_memory_usage_percent
    max_parallelism min_pause_between_checkpoints num_concurrent_checkpoints
    number_of_execution_retries open_telemetry open_telemetry_properties options_id
    output_executable_path parallelism remote_heap_dump_location report_checkpoint_duration
    resource_hints runner savepoint_path sdk_harness_log_level_overrides
    sdk_worker_parallelism semi_persist_dir shutdown_sources_after_idle_ms
    stable_unique_names state_backend state_backend_factory state_backend_storage_path
    temp_location transform_service_address transform_service_beam_version
    transforms_to_override update_compatibility_version user_agent
""".split()
_FLINK_SWITCHES = """
    allow_non_restored_state attached_mode auto_balance_write_files_sharding_enabled
    disable_metrics enable_heap_dumps enable_log_via_fn_api enable_stable_input_drain
    externalized_checkpoints_enabled fail_on_checkpointing_errors faster_copy
    finish_bundle_before_checkpointing force_slot_sharing_group
    force_unaligned_checkpoint_enabled gzip_compress_heap_dumps load_balance_bundles log_mdc
    object_reuse operator_chaining re_iterable_group_by_key_result retain_docker_containers
    retain_externalized_checkpoints_on_cancellation streaming unaligned_checkpoint_enabled
    use_data_stream_for_batch
""".split()

JAVA_OPTIONS: dict[str, dict[str, bool]] = {
    "flink": {**dict.fromkeys(_FLINK, True), **dict.fromkeys(_FLINK_SWITCHES, False)},
}
"""For each engine, the options by name, and whether one must have a value."""
