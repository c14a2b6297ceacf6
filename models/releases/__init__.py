"""What is released and who said so: bundles, the content-addressed store, the ledger; imports the standard library, msgspec and features only."""
