-- Times are microseconds since 1970-01-01 UTC, by the database's clock. Bodies are JSON text.
-- Keys are VARBINARY so that they compare byte by byte, trailing spaces included, as on every other backend.
-- DDL commits by itself here: each statement can be run again after a migration was cut short.

CREATE TABLE IF NOT EXISTS cluster_state (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT IGNORE INTO cluster_state (id, revision) VALUES (1, 0);

CREATE TABLE IF NOT EXISTS definition (
    kind VARBINARY(64) NOT NULL,
    name VARBINARY(256) NOT NULL,
    body LONGTEXT NOT NULL,
    PRIMARY KEY (kind, name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS secret (
    name VARBINARY(256) NOT NULL,
    version BIGINT NOT NULL,
    sealed LONGBLOB NOT NULL,
    PRIMARY KEY (name, version)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS audit (
    revision BIGINT NOT NULL PRIMARY KEY,
    time_us BIGINT NOT NULL,
    author LONGTEXT NOT NULL,
    message LONGTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS audit_change (
    revision BIGINT NOT NULL,
    subject VARBINARY(256) NOT NULL,
    before_body LONGTEXT,
    after_body LONGTEXT,
    PRIMARY KEY (revision, subject),
    FOREIGN KEY (revision) REFERENCES audit (revision)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- recency orders the deployments of a unit by when each was last stored or activated.
CREATE TABLE IF NOT EXISTS deployment (
    unit VARBINARY(190) NOT NULL,
    digest VARBINARY(64) NOT NULL,
    kind VARBINARY(64) NOT NULL,
    size BIGINT NOT NULL,
    manifest LONGTEXT NOT NULL,
    author LONGTEXT NOT NULL,
    created_us BIGINT NOT NULL,
    recency BIGINT NOT NULL,
    PRIMARY KEY (unit, digest)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS deployment_chunk (
    unit VARBINARY(190) NOT NULL,
    digest VARBINARY(64) NOT NULL,
    ordinal BIGINT NOT NULL,
    content LONGBLOB NOT NULL,
    PRIMARY KEY (unit, digest, ordinal),
    FOREIGN KEY (unit, digest) REFERENCES deployment (unit, digest) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS active_deployment (
    unit VARBINARY(190) NOT NULL PRIMARY KEY,
    digest VARBINARY(64) NOT NULL,
    FOREIGN KEY (unit, digest) REFERENCES deployment (unit, digest)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS deployment_attempt (
    id BIGINT NOT NULL PRIMARY KEY AUTO_INCREMENT,
    time_us BIGINT NOT NULL,
    server VARBINARY(190) NOT NULL,
    unit LONGTEXT NOT NULL,
    digest VARBINARY(64),
    source LONGTEXT NOT NULL,
    outcome LONGTEXT NOT NULL,
    reason LONGTEXT NOT NULL,
    detail LONGTEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS pickup_file (
    server VARBINARY(190) NOT NULL,
    path VARBINARY(1024) NOT NULL,
    digest VARBINARY(64) NOT NULL,
    outcome LONGTEXT NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (server, path)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS server (
    name VARBINARY(190) NOT NULL PRIMARY KEY,
    address LONGTEXT NOT NULL,
    management LONGTEXT NOT NULL,
    version LONGTEXT NOT NULL,
    joined_us BIGINT NOT NULL,
    seen_us BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS deployment_report (
    server VARBINARY(190) NOT NULL,
    unit VARBINARY(190) NOT NULL,
    digest VARBINARY(64) NOT NULL,
    state LONGTEXT NOT NULL,
    message LONGTEXT NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (server, unit)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS account (
    name VARBINARY(190) NOT NULL PRIMARY KEY,
    role LONGTEXT NOT NULL,
    password_hash LONGTEXT NOT NULL,
    created_us BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS access_token (
    id VARBINARY(190) NOT NULL PRIMARY KEY,
    account VARBINARY(190) NOT NULL,
    hash LONGTEXT NOT NULL,
    role LONGTEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT,
    KEY access_token_account (account),
    FOREIGN KEY (account) REFERENCES account (name) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS lease (
    name VARBINARY(190) NOT NULL PRIMARY KEY,
    holder VARBINARY(190) NOT NULL,
    fencing BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS certificate_authority (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    sealed_key LONGBLOB NOT NULL,
    certificate_pem LONGTEXT NOT NULL,
    created_us BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS data_entry (
    name VARBINARY(512) NOT NULL PRIMARY KEY,
    body LONGTEXT NOT NULL,
    version BIGINT NOT NULL,
    expires_us BIGINT,
    KEY data_entry_expires (expires_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
