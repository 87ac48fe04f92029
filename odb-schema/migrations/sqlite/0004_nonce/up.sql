-- What may be used once, over all servers: SHA-256 of nonces of credentials.
CREATE TABLE used_nonce (
    digest TEXT NOT NULL PRIMARY KEY,
    until_us INTEGER NOT NULL
) STRICT;
CREATE INDEX used_nonce_until ON used_nonce (until_us);
