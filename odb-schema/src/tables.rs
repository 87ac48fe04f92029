//! The tables, as diesel sees them on every backend. Columns are few types only (text, 64-bit integers,
//! bytes), because those mean the same everywhere. Times are microseconds since 1970-01-01 UTC by the
//! database's clock; bodies are JSON text.

diesel::table! {
    cluster_state (id) {
        id -> BigInt,
        revision -> BigInt,
    }
}

diesel::table! {
    definition (kind, name) {
        kind -> Text,
        name -> Text,
        body -> Text,
    }
}

diesel::table! {
    secret (name, version) {
        name -> Text,
        version -> BigInt,
        sealed -> Binary,
    }
}

diesel::table! {
    audit (revision) {
        revision -> BigInt,
        time_us -> BigInt,
        author -> Text,
        message -> Text,
    }
}

diesel::table! {
    audit_change (revision, subject) {
        revision -> BigInt,
        subject -> Text,
        before_body -> Nullable<Text>,
        after_body -> Nullable<Text>,
    }
}

diesel::table! {
    deployment (unit, digest) {
        unit -> Text,
        digest -> Text,
        kind -> Text,
        size -> BigInt,
        manifest -> Text,
        author -> Text,
        created_us -> BigInt,
        recency -> BigInt,
    }
}

diesel::table! {
    deployment_chunk (unit, digest, ordinal) {
        unit -> Text,
        digest -> Text,
        ordinal -> BigInt,
        content -> Binary,
    }
}

diesel::table! {
    active_deployment (unit) {
        unit -> Text,
        digest -> Text,
    }
}

diesel::table! {
    deployment_attempt (id) {
        id -> BigInt,
        time_us -> BigInt,
        server -> Text,
        unit -> Text,
        digest -> Nullable<Text>,
        source -> Text,
        outcome -> Text,
        reason -> Text,
        detail -> Text,
    }
}

diesel::table! {
    pickup_file (server, path) {
        server -> Text,
        path -> Text,
        digest -> Text,
        outcome -> Text,
        time_us -> BigInt,
    }
}

diesel::table! {
    server (name) {
        name -> Text,
        address -> Text,
        management -> Text,
        version -> Text,
        joined_us -> BigInt,
        seen_us -> BigInt,
        tls -> BigInt,
        boot -> Text,
        state -> Text,
        reason -> Text,
        wanted -> Text,
        revision -> BigInt,
        in_flight -> BigInt,
    }
}

diesel::table! {
    deployment_report (server, unit) {
        server -> Text,
        unit -> Text,
        digest -> Text,
        state -> Text,
        message -> Text,
        time_us -> BigInt,
    }
}

diesel::table! {
    account (name) {
        name -> Text,
        role -> Text,
        password_hash -> Text,
        created_us -> BigInt,
    }
}

diesel::table! {
    access_token (id) {
        id -> Text,
        account -> Text,
        hash -> Text,
        role -> Text,
        created_us -> BigInt,
        expires_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    lease (name) {
        name -> Text,
        holder -> Text,
        fencing -> BigInt,
        expires_us -> BigInt,
    }
}

diesel::table! {
    certificate_authority (id) {
        id -> BigInt,
        sealed_key -> Binary,
        certificate_pem -> Text,
        created_us -> BigInt,
    }
}

diesel::table! {
    certificate (serial) {
        serial -> Text,
        kind -> Text,
        name -> Text,
        fingerprint -> Text,
        author -> Text,
        issued_us -> BigInt,
        expires_us -> BigInt,
    }
}

diesel::table! {
    revocation (serial) {
        serial -> Text,
        revoked_us -> BigInt,
    }
}

diesel::table! {
    used_nonce (digest) {
        digest -> Text,
        until_us -> BigInt,
    }
}

diesel::table! {
    join_token (id) {
        id -> Text,
        hash -> Text,
        author -> Text,
        created_us -> BigInt,
        expires_us -> BigInt,
        used_us -> Nullable<BigInt>,
        used_by -> Text,
    }
}

diesel::table! {
    data_entry (name) {
        name -> Text,
        body -> Text,
        version -> BigInt,
        expires_us -> Nullable<BigInt>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(deployment, active_deployment);
