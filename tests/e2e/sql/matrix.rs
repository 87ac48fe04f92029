//! Every type, from Python to each database and back.

use crosstie_test_support::Environment;
use serde_json::json;

use super::{apply, definition, file, mariadb, postgres};

const MATRIX: &str = r#"
import enum, uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address
from crosstie import Model, Service, rest

class Address(Model):
    street: str
    floor: int = 0

class Mood(enum.Enum):
    SAD = "sad"

ID = uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
ZONE = timezone(timedelta(hours=-5, minutes=-30))
MOMENT = datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=ZONE)
NAIVE = datetime(2026, 2, 28, 1, 2, 3, 4)
SPAN = timedelta(days=-2, hours=3, microseconds=7)
TEXT = "it's \"q\" \\ % _ ? :a $1 {} ; -- /* */ \U0001F600 \r\n\t"
BYTES = bytes(range(256))
DOC = {"a": [1, 2.5, None, True, "x'\"\\"], "n": 12345678901234567890123}
BIG = Decimal("-1234567890123456789012345678.0123456789")

def same(*values):
    return [(value, value) for value in values]

POSTGRES = {
    "boolean": same(True, False), "smallint": same(-32768), "integer": same(2147483647),
    "bigint": same(-2**63, 2**63 - 1),
    "numeric": same(Decimal("1.10"), BIG, Decimal("NaN")) + [(2**70, Decimal(2**70)), (7, Decimal(7))],
    "double precision": same(0.1, 5e-324, float("inf")), "real": same(0.1),
    "text": same("", TEXT) + [(Mood.SAD, "sad")], "varchar(10)": same("Zoë"),
    "bytea": same(BYTES, b"") + [(bytearray(b"x"), b"x"), (memoryview(b"y"), b"y")],
    "date": same(date(1, 1, 1), date(9999, 12, 31)), "time": same(time(23, 59, 59, 999999)),
    "timetz": same(time(1, 2, 3, 4, tzinfo=ZONE)),
    "timestamp": same(NAIVE), "timestamptz": same(MOMENT),
    "interval": same(SPAN, timedelta(days=400)),
    "uuid": same(ID) + [(str(ID), ID)],
    "json": same(DOC) + [([1, {"a": "b"}], [1, {"a": "b"}])], "jsonb": same(DOC, {}),
    "integer[]": same([1, None, -3], []) + [((1, 2), [1, 2])], "text[]": same(["", "NULL", "a,b", "{\"}", "\\"]),
    "integer[][]": same([[1, 2], [3, 4]]), "bytea[]": same([BYTES, None]), "uuid[]": same([ID]),
    "timestamptz[]": same([MOMENT]), "numeric[]": same([Decimal("1.10"), None]),
    "mood": [(Mood.SAD, "sad"), ("sad", "sad")],
    "inet": [(ip_address("10.0.0.7"), "10.0.0.7"), ("2001:db8::/32", "2001:db8::/32")],
    "addr": [(Address(street="A", floor=2), {"street": "A", "floor": 2})],
}
MARIADB = {
    "boolean": same(True, False, 7), "tinyint": same(-128), "bigint": same(-2**63), "bigint unsigned": same(2**64 - 1),
    "decimal(38,10)": same(BIG), "double": same(0.1, 2.2250738585072014e-308), "float": same(0.1),
    "text": same("", TEXT) + [(Mood.SAD, "sad")], "blob": same(BYTES, b""), "date": same(date(1000, 1, 1)),
    "datetime(6)": same(NAIVE), "timestamp(6)": same(MOMENT), "time(6)": same(SPAN) + [(time(1, 2), timedelta(hours=1, minutes=2))],
    "year": same(2026), "bit(40)": same(2**39), "enum('sad')": [(Mood.SAD, "sad")],
    ("uuid", "uuid"): same(ID), ("json", "json"): same(DOC, {}) + [([1, 2], [1, 2])], ("time(6)", "time"): same(time(23, 59, 59, 999999)),
    "inet6": same("2001:db8::7"),
}
SQLITE = {
    "boolean": same(True, False), "integer": same(-2**63, 2**63 - 1), "real": same(0.1, float("inf")),
    "decimal_text": same(BIG, Decimal("1.10")), "text": same("", TEXT), "blob": same(BYTES, b""),
    "date": same(date(1, 1, 1)), "time": same(time(23, 59, 59, 999999)), "timestamp": same(NAIVE, MOMENT),
    "interval": same(SPAN), "uuid": same(ID), "json": same(DOC) + [([1, 2], [1, 2])],
}
PREPARE = {"pg": ["CREATE TYPE mood AS ENUM ('sad')", "CREATE DOMAIN addr AS jsonb"]}
CASES = {"pg": POSTGRES, "maria": MARIADB, "lite": SQLITE}

def alike(found, wanted):
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, Decimal) and wanted.is_nan():
        return found.is_nan()
    if isinstance(wanted, datetime) and (found.tzinfo is None) != (wanted.tzinfo is None):
        return False
    return found == wanted

class Matrix(Service):
    name = "matrix"
    channels = [rest("GET", "/matrix/{db}")]
    deadline_ms = 60_000
    def handle(self):
        name = self.request.http.params["db"]
        db, wrong, count = self.out.sql[name], [], 0
        for statement in PREPARE.get(name, []):
            db.execute(statement)
        for number, (column, pairs) in enumerate(CASES[name].items()):
            column, declared = column if isinstance(column, tuple) else (column, None)
            db.execute(f"CREATE TABLE m{number} (n integer, v {column})")
            db.execute(f"INSERT INTO m{number} VALUES (:n, :v)", [{"n": n, "v": sent} for n, (sent, _) in enumerate(pairs)])
            db.execute(f"INSERT INTO m{number} VALUES (:n, :v)", {"n": len(pairs), "v": None})
            types = {"v": declared} if declared else None
            rows = db.all(f"SELECT v FROM m{number} ORDER BY n", types=types)
            for (sent, wanted), row in zip(pairs + [(None, None)], rows, strict=True):
                count += 1
                if not alike(row.v, wanted):
                    wrong.append(f"{column}: {sent!r} came back as {row.v!r}")
        return {"wrong": wrong, "count": count}
"#;

#[test]
fn every_type_survives_on_every_database() {
    let (pg, maria) = (postgres(), mariadb());
    let environment = Environment::start().unwrap();
    let outgoings =
        definition("pg", &pg, "") + &definition("maria", &maria, "") + &file("lite", &environment);
    apply(&environment, &outgoings);
    environment.drop_file("matrix.py", MATRIX).unwrap();
    environment.wait_for_status("/matrix/none", 500);
    for name in ["pg", "maria", "lite"] {
        let reply = environment.http().get(&format!("/matrix/{name}")).unwrap();
        assert_eq!(reply.status, 200, "{name}: {}\n{}", reply.text(), environment.log_tail("server.log"));
        let found = reply.json();
        assert_eq!(found["wrong"], json!([]), "{name}");
        assert!(found["count"].as_u64().unwrap() >= 30, "{name}: {found}");
    }
}
