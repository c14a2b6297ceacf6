DELETE FROM outcomes WHERE list_contains($outcome_keys::VARCHAR[], outcome_key)
