"""Orchestration: thin Prefect flows, the command line, and the one place where everything is wired."""
