SELECT rule, field, count(*) AS n_rows FROM quarantine GROUP BY ALL ORDER BY n_rows DESC, rule, field
