"""Prefect: orchestration only. What there is to run, and what is stale, DVC says."""
