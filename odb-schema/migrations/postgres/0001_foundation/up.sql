-- Keys compare byte by byte (collation C), as on every other backend.
-- Times are microseconds since 1970-01-01 UTC, by the database's clock. Bodies are JSON text.

CREATE TABLE cluster_state (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL
);
INSERT INTO cluster_state (id, revision) VALUES (1, 0);

CREATE TABLE definition (
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE secret (
    name TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE audit (
    revision BIGINT NOT NULL PRIMARY KEY,
    time_us BIGINT NOT NULL,
    author TEXT NOT NULL,
    message TEXT NOT NULL
);

CREATE TABLE audit_change (
    revision BIGINT NOT NULL REFERENCES audit (revision),
    subject TEXT COLLATE "C" NOT NULL,
    before_body TEXT,
    after_body TEXT,
    PRIMARY KEY (revision, subject)
);

-- recency orders the deployments of a unit by when each was last stored or activated.
CREATE TABLE deployment (
    unit TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    author TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    recency BIGINT NOT NULL,
    PRIMARY KEY (unit, digest)
);

CREATE TABLE deployment_chunk (
    unit TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    ordinal BIGINT NOT NULL,
    content BYTEA NOT NULL,
    PRIMARY KEY (unit, digest, ordinal),
    FOREIGN KEY (unit, digest) REFERENCES deployment (unit, digest) ON DELETE CASCADE
);

CREATE TABLE active_deployment (
    unit TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    digest TEXT COLLATE "C" NOT NULL,
    FOREIGN KEY (unit, digest) REFERENCES deployment (unit, digest)
);

CREATE TABLE deployment_attempt (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time_us BIGINT NOT NULL,
    server TEXT COLLATE "C" NOT NULL,
    unit TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C",
    source TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL
);

CREATE TABLE pickup_file (
    server TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    outcome TEXT NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (server, path)
);

CREATE TABLE server (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    management TEXT NOT NULL,
    version TEXT NOT NULL,
    joined_us BIGINT NOT NULL,
    seen_us BIGINT NOT NULL
);

CREATE TABLE deployment_report (
    server TEXT COLLATE "C" NOT NULL,
    unit TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL,
    message TEXT NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (server, unit)
);

CREATE TABLE account (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_us BIGINT NOT NULL
);

CREATE TABLE access_token (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account TEXT COLLATE "C" NOT NULL REFERENCES account (name) ON DELETE CASCADE,
    hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT
);
CREATE INDEX access_token_account ON access_token (account);

CREATE TABLE lease (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    fencing BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
);

CREATE TABLE certificate_authority (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    sealed_key BYTEA NOT NULL,
    certificate_pem TEXT NOT NULL,
    created_us BIGINT NOT NULL
);

CREATE TABLE data_entry (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    body TEXT NOT NULL,
    version BIGINT NOT NULL,
    expires_us BIGINT
);
CREATE INDEX data_entry_expires ON data_entry (expires_us);
