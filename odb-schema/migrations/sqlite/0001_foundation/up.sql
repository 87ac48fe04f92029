-- Times are microseconds since 1970-01-01 UTC, by the database's clock. Bodies are JSON text.

CREATE TABLE cluster_state (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO cluster_state (id, revision) VALUES (1, 0);

CREATE TABLE definition (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

CREATE TABLE secret (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;

CREATE TABLE audit (
    revision INTEGER NOT NULL PRIMARY KEY,
    time_us INTEGER NOT NULL,
    author TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;

CREATE TABLE audit_change (
    revision INTEGER NOT NULL REFERENCES audit (revision),
    subject TEXT NOT NULL,
    before_body TEXT,
    after_body TEXT,
    PRIMARY KEY (revision, subject)
) STRICT;

-- recency orders the deployments of a unit by when each was last stored or activated.
CREATE TABLE deployment (
    unit TEXT NOT NULL,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    size INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    author TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    recency INTEGER NOT NULL,
    PRIMARY KEY (unit, digest)
) STRICT;

CREATE TABLE deployment_chunk (
    unit TEXT NOT NULL,
    digest TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (unit, digest, ordinal),
    FOREIGN KEY (unit, digest) REFERENCES deployment (unit, digest) ON DELETE CASCADE
) STRICT;

CREATE TABLE active_deployment (
    unit TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL,
    FOREIGN KEY (unit, digest) REFERENCES deployment (unit, digest)
) STRICT;

CREATE TABLE deployment_attempt (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    time_us INTEGER NOT NULL,
    server TEXT NOT NULL,
    unit TEXT NOT NULL,
    digest TEXT,
    source TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TABLE pickup_file (
    server TEXT NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    outcome TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    PRIMARY KEY (server, path)
) STRICT;

CREATE TABLE server (
    name TEXT NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    management TEXT NOT NULL,
    version TEXT NOT NULL,
    joined_us INTEGER NOT NULL,
    seen_us INTEGER NOT NULL
) STRICT;

CREATE TABLE deployment_report (
    server TEXT NOT NULL,
    unit TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    PRIMARY KEY (server, unit)
) STRICT;

CREATE TABLE account (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE access_token (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL REFERENCES account (name) ON DELETE CASCADE,
    hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER
) STRICT;
CREATE INDEX access_token_account ON access_token (account);

CREATE TABLE lease (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    fencing INTEGER NOT NULL,
    expires_us INTEGER NOT NULL
) STRICT;

CREATE TABLE certificate_authority (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    sealed_key BLOB NOT NULL,
    certificate_pem TEXT NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE data_entry (
    name TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL,
    version INTEGER NOT NULL,
    expires_us INTEGER
) STRICT;
CREATE INDEX data_entry_expires ON data_entry (expires_us);
