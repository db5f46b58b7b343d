"""Options that the Java side of Flink's and Spark's runners knows, beside Beam's Python ones.

Facts taken from what the job servers of Beam 2.70 (Flink) and 2.62 (Spark) answer to
``DescribePipelineOptions``.
"""

from __future__ import annotations

_BOTH = """
    app_name avro_serializable_classes bundle_processor_cache_timeout default_environment_config
    default_environment_type default_sdk_harness_log_level element_processing_timeout_minutes
    environment_cache_millis environment_expiration_millis environment_options experiments
    files_to_stage g_c_thrashing_percentage_per_period gbek grouping_table_max_size_mb
    jdk_add_open_modules jdk_add_root_modules job_endpoint job_name job_server_timeout
    max_cache_memory_usage_mb max_cache_memory_usage_mb_class max_cache_memory_usage_percent
    open_telemetry open_telemetry_properties options_id output_executable_path
    remote_heap_dump_location resource_hints runner sdk_harness_log_level_overrides
    sdk_worker_parallelism semi_persist_dir stable_unique_names temp_location
    transform_service_address transform_service_beam_version transforms_to_override
    update_compatibility_version user_agent
"""
_BOTH_SWITCHES = """
    enable_heap_dumps enable_log_via_fn_api gzip_compress_heap_dumps load_balance_bundles
    log_mdc retain_docker_containers streaming
"""
_FLINK = """
    auto_watermark_interval checkpoint_timeout_millis checkpointing_interval checkpointing_mode
    execution_mode_for_batch execution_retry_delay file_input_split_max_size_m_b flink_conf_dir
    flink_master job_check_interval_in_secs latency_tracking_interval max_bundle_size
    max_bundle_time_mills max_parallelism min_pause_between_checkpoints
    num_concurrent_checkpoints number_of_execution_retries parallelism
    report_checkpoint_duration savepoint_path shutdown_sources_after_idle_ms state_backend
    state_backend_factory state_backend_storage_path
"""
_FLINK_SWITCHES = """
    allow_non_restored_state attached_mode auto_balance_write_files_sharding_enabled
    disable_metrics enable_stable_input_drain externalized_checkpoints_enabled
    fail_on_checkpointing_errors faster_copy finish_bundle_before_checkpointing
    force_slot_sharing_group force_unaligned_checkpoint_enabled object_reuse operator_chaining
    re_iterable_group_by_key_result retain_externalized_checkpoints_on_cancellation
    unaligned_checkpoint_enabled use_data_stream_for_batch
"""
_SPARK = """
    batch_interval_millis bundle_size checkpoint_dir checkpoint_duration_millis
    max_records_per_batch min_read_time_millis read_time_percentage spark_master storage_level
    streaming_timeout_ms
"""
_SPARK_SWITCHES = """
    cache_disabled enable_spark_metric_sinks prefer_group_by_key_to_handle_huge_values test_mode
    use_active_spark_session uses_provided_spark_context
"""


def _options(own: str, own_switches: str) -> dict[str, bool]:
    values, switches = f"{_BOTH} {own}".split(), f"{_BOTH_SWITCHES} {own_switches}".split()
    return {**dict.fromkeys(values, True), **dict.fromkeys(switches, False)}


FLINK = _options(_FLINK, _FLINK_SWITCHES)
SPARK = _options(_SPARK, _SPARK_SWITCHES)
"""The options by name, and whether one must have a value."""
