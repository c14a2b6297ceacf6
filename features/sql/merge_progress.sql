MERGE INTO progress
USING (
    SELECT $source AS source, $digest AS digest, $position::BIGINT AS "position", $n_rows::BIGINT AS n_rows, $now::TIMESTAMPTZ AS read_at
) AS staged
USING (source)
WHEN MATCHED THEN UPDATE BY NAME
WHEN NOT MATCHED THEN INSERT BY NAME
