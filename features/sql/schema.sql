-- The tables. None has a primary key: loading with one is three times slower, an anti-join by key costs little.
CREATE TABLE schema_version (version INTEGER NOT NULL);

CREATE TABLE decisions (
    decision_id VARCHAR NOT NULL,
    event_id VARCHAR NOT NULL,
    event_source VARCHAR NOT NULL,
    event_type VARCHAR NOT NULL,
    event_time TIMESTAMPTZ,
    stream VARCHAR NOT NULL,
    decided_at TIMESTAMPTZ NOT NULL,
    mode VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    assigned VARCHAR NOT NULL,
    propensity DOUBLE NOT NULL,
    destinations VARCHAR[] NOT NULL,
    mixture DOUBLE[] NOT NULL,
    policies MAP(VARCHAR, DOUBLE[]) NOT NULL,
    feature_set VARCHAR NOT NULL,
    numbers DOUBLE[][] NOT NULL,
    categories VARCHAR[][] NOT NULL,
    predictions VARCHAR,
    excluded MAP(VARCHAR, VARCHAR) NOT NULL,
    arm VARCHAR NOT NULL,
    arm_probability DOUBLE NOT NULL,
    arm_unit VARCHAR NOT NULL,
    generation BIGINT NOT NULL,
    champion VARCHAR,
    challenger VARCHAR,
    shadow VARCHAR,
    policy_revision VARCHAR NOT NULL,
    override VARCHAR,
    explored BOOLEAN NOT NULL,
    state_age_ms DOUBLE,
    content VARCHAR,
    latency_us DOUBLE NOT NULL,
    "schema" BIGINT NOT NULL,
    extras VARCHAR,
    payload_digest VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL
);

-- late is null, and the bytes it came in are kept, as long as the outcome's decision is not known.
CREATE TABLE outcomes (
    outcome_key VARCHAR NOT NULL,
    decision_id VARCHAR NOT NULL,
    served VARCHAR NOT NULL,
    observed_at TIMESTAMPTZ NOT NULL,
    status VARCHAR NOT NULL,
    success BOOLEAN,
    latency_ms DOUBLE,
    cost_usd DOUBLE,
    error_class VARCHAR,
    attempt BIGINT NOT NULL,
    idempotency_key VARCHAR NOT NULL,
    probe BOOLEAN NOT NULL,
    "schema" BIGINT NOT NULL,
    extras VARCHAR,
    late BOOLEAN,
    pending_raw BLOB,
    payload_digest VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    "position" BIGINT NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE quarantine (
    source VARCHAR NOT NULL,
    "position" BIGINT NOT NULL,
    rule VARCHAR NOT NULL,
    field VARCHAR,
    message VARCHAR NOT NULL,
    raw BLOB NOT NULL,
    raw_bytes BIGINT NOT NULL,
    raw_digest VARCHAR NOT NULL,
    quarantined_at TIMESTAMPTZ NOT NULL
);

-- How far each source has been read; a source whose digest has changed is another source.
CREATE TABLE progress (
    source VARCHAR NOT NULL,
    digest VARCHAR NOT NULL,
    "position" BIGINT NOT NULL,
    n_rows BIGINT NOT NULL,
    read_at TIMESTAMPTZ NOT NULL
);
