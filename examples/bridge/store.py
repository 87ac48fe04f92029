"""Orders in the database. The statements are the same for SQLite and PostgreSQL, save what `TABLES` says."""

from crosstie import SqlIntegrityError

TABLES = (
    "CREATE TABLE IF NOT EXISTS order_number (number INTEGER PRIMARY KEY AUTOINCREMENT)",
    "CREATE TABLE IF NOT EXISTS placed_order (number INTEGER PRIMARY KEY, reference TEXT NOT NULL UNIQUE,"
    " state TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS order_item (number INTEGER NOT NULL REFERENCES placed_order, position INTEGER NOT NULL,"
    " article TEXT NOT NULL, quantity INTEGER NOT NULL, PRIMARY KEY (number, position))",
)


class Taken(Exception):
    """An order with this reference is there."""


def next_number(db):
    """A number that no order ever had. It stays used when the order comes to nothing: its event may be on its way,
    and must not be taken for that of another order.
    """
    return db.execute("INSERT INTO order_number DEFAULT VALUES RETURNING number").scalar()


def insert(tx, number, wanted):
    try:
        tx.execute(
            "INSERT INTO placed_order (number, reference, state) VALUES (:number, :reference, 'placed')",
            {"number": number, "reference": wanted.reference},
        )
    except SqlIntegrityError as error:
        raise Taken from error
    tx.execute(
        "INSERT INTO order_item (number, position, article, quantity) VALUES (:number, :position, :article, :quantity)",
        [
            {"number": number, "position": position, **item.to_dict()}
            for position, item in enumerate(wanted.items, start=1)
        ],
    )


def by_number(db, number):
    return _whole(db, db.one_or_none("SELECT * FROM placed_order WHERE number = :number", {"number": number}))


def by_reference(db, reference):
    return _whole(
        db, db.one_or_none("SELECT * FROM placed_order WHERE reference = :reference", {"reference": reference})
    )


def _whole(db, order):
    if order is None:
        return None
    items = db.all("SELECT article, quantity FROM order_item WHERE number = :number ORDER BY position", order)
    return {**order, "items": items}
