-- What a server says of itself with every heartbeat, and what is wanted of it. Rows of an older release say
-- nothing of it: their servers left.
ALTER TABLE server
    ADD COLUMN tls BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN boot TEXT NOT NULL DEFAULT '',
    ADD COLUMN state TEXT NOT NULL DEFAULT 'left',
    ADD COLUMN reason TEXT NOT NULL DEFAULT '',
    ADD COLUMN wanted TEXT NOT NULL DEFAULT 'serving',
    ADD COLUMN revision BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN in_flight BIGINT NOT NULL DEFAULT 0;

CREATE TABLE certificate (
    serial TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT NOT NULL,
    author TEXT NOT NULL,
    issued_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
);
CREATE INDEX certificate_name ON certificate (kind, name);

CREATE TABLE join_token (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    author TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    used_us BIGINT,
    used_by TEXT NOT NULL DEFAULT ''
);
