-- What a server says of itself with every heartbeat, and what is wanted of it. Rows of an older release say
-- nothing of it: their servers left. Columns cannot be added "if not exists" on MySQL; a migration that was cut
-- short finds them by asking.

SET @crosstie_columns = (SELECT COUNT(*) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'server' AND column_name = 'boot');
SET @crosstie_add = IF(@crosstie_columns > 0, 'DO 0', 'ALTER TABLE server
    ADD COLUMN tls BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN boot VARBINARY(190) NOT NULL DEFAULT '''',
    ADD COLUMN state VARBINARY(64) NOT NULL DEFAULT ''left'',
    ADD COLUMN reason VARBINARY(1024) NOT NULL DEFAULT '''',
    ADD COLUMN wanted VARBINARY(64) NOT NULL DEFAULT ''serving'',
    ADD COLUMN revision BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN in_flight BIGINT NOT NULL DEFAULT 0');
PREPARE crosstie_add FROM @crosstie_add;
EXECUTE crosstie_add;
DEALLOCATE PREPARE crosstie_add;

CREATE TABLE IF NOT EXISTS certificate (
    serial VARBINARY(64) NOT NULL PRIMARY KEY,
    kind VARBINARY(64) NOT NULL,
    name VARBINARY(190) NOT NULL,
    fingerprint VARBINARY(64) NOT NULL,
    author LONGTEXT NOT NULL,
    issued_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    KEY certificate_name (kind, name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS join_token (
    id VARBINARY(190) NOT NULL PRIMARY KEY,
    hash VARBINARY(190) NOT NULL,
    author LONGTEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    used_us BIGINT,
    used_by VARBINARY(190) NOT NULL DEFAULT ''
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
