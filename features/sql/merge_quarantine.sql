-- One row per place, rule and content: reading a source again adds nothing.
INSERT INTO quarantine BY NAME
SELECT * FROM quarantined
ANTI JOIN quarantine AS stored USING (source, "position", rule, raw_digest)
