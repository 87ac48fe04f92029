//! Every type there and back, on each database.

use bytes::Bytes;
use crosstie_model::outgoing::SqlValue::{
    Array, Bool, Bytes as Blob, Date, Float, Int, Interval, Json, Null, Time, TimeTz, Timestamp, TimestampTz,
    UInt, Uuid,
};
use crosstie_model::outgoing::{SqlType, SqlValue, Trouble};
use time::macros::{date, datetime, offset, time as clock};
use time::{Duration, OffsetDateTime};

use crate::support::{Engine, TestDatabase, call, call_typed, decimal, text, wait_until};

/// A column's type, a value, and what the value is when it comes back.
struct Case {
    column: &'static str,
    sent: SqlValue,
    received: SqlValue,
}

fn same(column: &'static str, value: SqlValue) -> Case {
    Case { column, sent: value.clone(), received: value }
}

fn differs(column: &'static str, sent: SqlValue, received: SqlValue) -> Case {
    Case { column, sent, received }
}

fn every_byte() -> SqlValue {
    Blob((0..=255_u8).collect::<Vec<_>>().into())
}

fn difficult_text() -> SqlValue {
    text("it's \"q\" \\ \\' % _ ? :a $1 {} ; -- /* */ \u{1F600} \u{0301} \r\n\t end")
}

fn json() -> SqlValue {
    Json(r#"{"a": [1, 2.5, null, "x'\"\\"]}"#.to_owned())
}

const ID: SqlValue = Uuid(0xf81d_4fae_7dec_11d0_a765_00a0_c91e_6bf6);

fn moment() -> OffsetDateTime {
    datetime!(2026-02-28 23:59:59.999999 -05:30)
}

fn on_postgres() -> Vec<Case> {
    let mut cases = scalars_of_postgres();
    cases.extend(others_of_postgres());
    cases
}

fn scalars_of_postgres() -> Vec<Case> {
    vec![
        same("boolean", Bool(true)),
        same("boolean", Bool(false)),
        same("smallint", Int(i16::MIN.into())),
        same("integer", Int(i32::MAX.into())),
        same("bigint", Int(i64::MIN)),
        same("bigint", Int(i64::MAX)),
        differs("numeric", UInt(u64::MAX), decimal("18446744073709551615")),
        same("numeric(38,10)", decimal("-1234567890123456789012345678.0123456789")),
        same("numeric", decimal("0.000000000000000000000000000001")),
        same("numeric", decimal("NaN")),
        differs("numeric", decimal("1E+5"), decimal("100000")),
        differs("numeric(5,2)", Int(7), decimal("7.00")),
        same("real", Float(0.1)),
        same("double precision", Float(0.1)),
        same("double precision", Float(f64::MIN_POSITIVE)),
        same("double precision", Float(f64::INFINITY)),
        same("text", text("")),
        same("text", difficult_text()),
        same("varchar(10)", text("Zoë")),
        differs("char(4)", text("ab"), text("ab  ")),
        same("bytea", every_byte()),
        same("bytea", Blob(Bytes::new())),
        same("date", Date(date!(0001 - 01 - 01))),
        same("date", Date(date!(9999 - 12 - 31))),
        same("time", Time(clock!(23:59:59.999999))),
        same("timetz", TimeTz(clock!(1:02:03.000004), offset!(-5:30))),
        same("timestamp", Timestamp(datetime!(2026-02-28 1:02:03.000004))),
        differs("timestamptz", TimestampTz(moment()), TimestampTz(moment().to_offset(offset!(UTC)))),
        // What has no zone is taken as UTC has it, and the other way round.
        differs(
            "timestamptz",
            Timestamp(datetime!(2026-02-28 1:02:03)),
            TimestampTz(datetime!(2026-02-28 1:02:03 UTC)),
        ),
        differs(
            "timestamp",
            TimestampTz(datetime!(2026-02-28 1:00:00 +02:00)),
            Timestamp(datetime!(2026-02-27 23:00:00)),
        ),
        same("interval", Interval(Duration::microseconds(-90_061_000_007))),
        same("interval", Interval(Duration::days(400))),
        same("uuid", ID),
        differs("uuid", text("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), ID),
    ]
}

fn others_of_postgres() -> Vec<Case> {
    let numbers = Array(vec![Int(1), Null, Int(-3)]);
    let texts = Array(["", "NULL", "a,b", "{\"}", "\\", "it's", " "].map(text).to_vec());
    let grid = Array(vec![Array(vec![Int(1), Int(2)]), Array(vec![Int(3), Int(4)])]);
    vec![
        same("json", json()),
        same("jsonb", json()),
        differs("jsonb", Array(vec![Int(1), text("a")]), Json(r#"[1, "a"]"#.into())),
        same("integer[]", numbers),
        same("text[]", texts),
        same("text[]", Array(Vec::new())),
        same("integer[][]", grid),
        same("bytea[]", Array(vec![every_byte(), Null])),
        same("timestamptz[]", Array(vec![TimestampTz(datetime!(2026-02-28 1:02:03 UTC))])),
        same("mood", text("it's fine")),
        same("mood[]", Array(vec![text("sad"), Null])),
        same("positive", Int(7)),
        same("inet", text("10.0.0.7")),
        same("inet", text("2001:db8::/32")),
        same("cidr", text("10.0.0.0/8")),
        same("macaddr", text("08:00:2b:01:02:03")),
    ]
}

fn on_mariadb() -> Vec<Case> {
    vec![
        same("boolean", Bool(true)),
        same("boolean", Bool(false)),
        differs("boolean", Int(7), Int(7)),
        same("tinyint", Int(-128)),
        same("tinyint unsigned", Int(255)),
        same("smallint", Int(i16::MIN.into())),
        same("mediumint", Int(-8_388_608)),
        same("int", Int(i32::MAX.into())),
        same("int unsigned", Int(u32::MAX.into())),
        same("bigint", Int(i64::MIN)),
        same("bigint unsigned", UInt(u64::MAX)),
        same("decimal(38,10)", decimal("-1234567890123456789012345678.0123456789")),
        same("decimal(65,30)", decimal("12345678901234567890123456789012345.678901234567890123456789012345")),
        same("float", Float(0.1)),
        same("double", Float(0.1)),
        same("double", Float(f64::MIN_POSITIVE)),
        same("text", text("")),
        same("text", difficult_text()),
        same("text", text("\0 nul")),
        same("varchar(10)", text("Zoë")),
        same("blob", every_byte()),
        same("varbinary(300)", every_byte()),
        same("longblob", Blob(Bytes::new())),
        same("date", Date(date!(1000 - 01 - 01))),
        same("date", Date(date!(9999 - 12 - 31))),
        same("datetime(6)", Timestamp(datetime!(2026-02-28 1:02:03.000004))),
        differs("timestamp(6)", TimestampTz(moment()), TimestampTz(moment().to_offset(offset!(UTC)))),
        differs(
            "datetime",
            TimestampTz(datetime!(2026-02-28 1:00:00 +02:00)),
            Timestamp(datetime!(2026-02-27 23:00:00)),
        ),
        same("time(6)", Interval(Duration::microseconds(-90_061_000_007))),
        same("time", Interval(Duration::seconds(838 * 3600 + 59 * 60 + 59))),
        differs("time(6)", Time(clock!(23:59:59.999999)), Interval(Duration::microseconds(86_399_999_999))),
        same("year", Int(2026)),
        same("bit(40)", Int(0x00ff_00ff_00ff)),
        differs("uuid", ID, text("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")),
        differs("json", json(), text(r#"{"a": [1, 2.5, null, "x'\"\\"]}"#)),
        differs("json", Array(vec![Int(1), text("a")]), text(r#"[1,"a"]"#)),
        same("enum('sad', 'it''s fine')", text("it's fine")),
        same("set('a', 'b')", text("a,b")),
        same("inet6", text("2001:db8::7")),
    ]
}

fn on_sqlite() -> Vec<Case> {
    vec![
        same("boolean", Bool(true)),
        same("boolean", Bool(false)),
        same("integer", Int(i64::MIN)),
        same("integer", Int(i64::MAX)),
        same("real", Float(0.1)),
        same("real", Float(f64::INFINITY)),
        same("decimal_text", decimal("-1234567890123456789012345678.0123456789")),
        same("decimal(10,2)", decimal("12.5")),
        same("text", text("")),
        same("text", difficult_text()),
        same("text", text("\0 nul")),
        same("blob", every_byte()),
        same("blob", Blob(Bytes::new())),
        same("date", Date(date!(0001 - 01 - 01))),
        same("time", Time(clock!(23:59:59.999999))),
        same("timestamp", Timestamp(datetime!(2026-02-28 1:02:03.000004))),
        differs("timestamp", TimestampTz(moment()), TimestampTz(moment().to_offset(offset!(UTC)))),
        same("interval", Interval(Duration::microseconds(-90_061_000_007))),
        same("uuid", ID),
        same("json", json()),
        differs("json", Array(vec![Int(1), text("a")]), Json(r#"[1,"a"]"#.into())),
    ]
}

async fn round_trip(engine: Engine, cases: Vec<Case>) {
    let client = TestDatabase::new(engine).await.open().await;
    if engine == Engine::Postgres {
        client.run("CREATE TYPE mood AS ENUM ('sad', 'it''s fine')", &[]).await.unwrap();
        client.run("CREATE DOMAIN positive AS integer CHECK (value > 0)", &[]).await.unwrap();
    }
    for (index, Case { column, sent, received }) in cases.into_iter().enumerate() {
        let what = format!("{engine:?} {column} {sent:?}");
        let table = format!("t{index}");
        client.run(&format!("CREATE TABLE {table} (n integer, v {column})"), &[]).await.expect(&what);
        let insert = format!("INSERT INTO {table} VALUES (1, :v), (2, :none)");
        let done = client.run(&insert, &[("v", sent), ("none", Null)]).await.expect(&what);
        assert_eq!(done.affected, 2, "{what}");
        let found = client.run(&format!("SELECT v FROM {table} ORDER BY n"), &[]).await.expect(&what);
        assert_eq!(found.rows, [[received], [Null]], "{what}");
        assert_eq!(&*found.columns[0], "v");
    }
}

#[tokio::test]
async fn every_type_of_postgresql_survives() {
    round_trip(Engine::Postgres, on_postgres()).await;
}

#[tokio::test]
async fn every_type_of_mariadb_survives() {
    round_trip(Engine::MariaDb, on_mariadb()).await;
}

#[tokio::test]
async fn every_type_of_sqlite_survives() {
    round_trip(Engine::Sqlite, on_sqlite()).await;
}

#[tokio::test]
async fn a_type_without_a_counterpart_is_an_error_that_names_its_column() {
    let cases = [
        (Engine::Postgres, "SELECT point(1, 2) AS place", "point"),
        (Engine::Postgres, "SELECT int4range(1, 2) AS place", "int4range"),
        (Engine::Postgres, "SELECT ROW(1, 2) AS place", "record"),
        (Engine::Postgres, "SELECT interval '1 month' AS place", "month"),
        (Engine::Postgres, "SELECT 'infinity'::date AS place", "infinite"),
        (Engine::Postgres, "SELECT '4713-01-01 BC'::date AS place", "years 1 to 9999"),
        (Engine::MariaDb, "SELECT ST_PointFromText('POINT(1 2)') AS place", "geometry"),
    ];
    for (engine, statement, wanted) in cases {
        let client = TestDatabase::new(engine).await.open().await;
        let error = client.run(statement, &[]).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Misuse, "{error}");
        let said = error.to_string();
        assert!(said.contains("\"place\"") && said.contains(wanted), "{said}");
        // Others are served. A connection that is in the midst of rows is closed behind the call.
        assert_eq!(client.value("SELECT 1").await, Int(1));
        wait_until("one connection stays", || client.gauge("connections") == 1).await;
    }
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_refused_and_never_cut() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let client = TestDatabase::new(engine).await.open().await;
        client.run("CREATE TABLE t (a varchar(3), b smallint, c decimal(3, 1))", &[]).await.unwrap();
        for (column, value) in [("a", text("abcd")), ("b", Int(70_000)), ("c", decimal("1000"))] {
            let insert = format!("INSERT INTO t ({column}) VALUES (:v)");
            let error = client.run(&insert, &[("v", value)]).await.unwrap_err();
            assert_eq!(error.refusal.as_ref().unwrap().reason.as_str(), "value", "{engine:?} {error:?}");
        }
        assert_eq!(client.value("SELECT count(*) FROM t").await, Int(0));
    }
}

#[tokio::test]
async fn values_that_a_database_has_no_place_for_are_refused_before_they_are_sent() {
    let cases = [
        (Engine::Postgres, text("a\0b")),
        (Engine::MariaDb, Float(f64::NAN)),
        (Engine::MariaDb, TimeTz(clock!(1:00), offset!(+1))),
        (Engine::MariaDb, decimal("NaN")),
        (Engine::MariaDb, Interval(Duration::hours(900))),
        (Engine::Sqlite, UInt(u64::MAX)),
        (Engine::Sqlite, Float(f64::NAN)),
    ];
    for (engine, value) in cases {
        let client = TestDatabase::new(engine).await.open().await;
        let error = client.run("SELECT :v AS v", &[("v", value.clone())]).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Misuse, "{engine:?} {value:?} {error}");
        assert_eq!(client.value("SELECT 1").await, Int(1));
        assert_eq!(client.gauge("connections"), 1, "{engine:?} {value:?} costs no connection");
    }
}

#[tokio::test]
async fn a_call_names_the_types_of_columns_that_the_database_says_too_little_of() {
    let types = [
        ("id", SqlType::Uuid),
        ("doc", SqlType::Json),
        ("price", SqlType::Decimal),
        ("born", SqlType::Date),
        ("at", SqlType::Timestamp),
        ("flag", SqlType::Bool),
    ];
    for engine in crate::support::ALL {
        let client = TestDatabase::new(engine).await.open().await;
        let statement = "SELECT 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6' AS id, '[1]' AS doc, '1.10' AS price, \
                         '2026-02-28' AS born, '2026-02-28 01:02:03+00:00' AS at, 1 AS flag";
        let statement =
            if engine == Engine::MariaDb { statement.replace("AS at", "AS `at`") } else { statement.into() };
        let result = client.database.run(call_typed(&statement, &types)).await.unwrap();
        let wanted = vec![
            ID,
            Json("[1]".into()),
            decimal("1.10"),
            Date(date!(2026 - 02 - 28)),
            TimestampTz(datetime!(2026-02-28 1:02:03 UTC)),
            Bool(true),
        ];
        assert_eq!(result.rows, [wanted], "{engine:?}");
        let wrong = call_typed("SELECT 'x' AS id", &[("id", SqlType::Uuid)]);
        let error = client.database.run(wrong).await.unwrap_err();
        assert!(error.to_string().contains("\"id\""), "{error}");
        let absent = call_typed("SELECT 'x' AS id", &[("idd", SqlType::Text)]);
        let error = client.database.run(absent).await.unwrap_err();
        assert!(error.to_string().contains("\"idd\""), "{error}");
    }
}

#[tokio::test]
async fn values_keep_their_type_where_no_column_gives_them_one() {
    let on_postgres = [Int(5), Int(5_000_000_000), Float(1.5), Bool(true), decimal("1.10"), text("a"), ID];
    let on_mariadb = [Int(5), Float(1.5), decimal("1.10"), text("a"), Date(date!(2026 - 02 - 28))];
    for (engine, values) in [(Engine::Postgres, &on_postgres[..]), (Engine::MariaDb, &on_mariadb[..])] {
        let client = TestDatabase::new(engine).await.open().await;
        for value in values {
            let result = client.database.run(call("SELECT :v AS v", &[("v", value.clone())])).await.unwrap();
            assert_eq!(result.rows, [[value.clone()]], "{engine:?}");
        }
    }
}
