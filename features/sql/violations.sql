-- What was quarantined because the decision went where its rules forbid: kept raw, since it may not be trained on.
SELECT raw FROM quarantine WHERE rule IN ('excluded_assigned', 'unknown_assigned') ORDER BY source, "position"
