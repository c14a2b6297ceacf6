"""Verdicts: may these data be trained on, may this model be promoted; imports models and features, never serving or flows."""
