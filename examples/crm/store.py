"""Numbers and keys in ``self.data``, which all workers of all servers share."""

CUSTOMER = "crm/customer/"
EMAIL = "crm/email/"
ORDER = "crm/order/"


def next_number(data, name):
    """The next number of a sequence; no two callers get the same, whichever worker they run in."""
    key = f"crm/sequence/{name}"
    while True:
        number, version = data.entry(key) or (0, 0)
        if data.cas(key, number + 1, version):
            return number + 1


def sortable(number):
    """A number as text that sorts like the number."""
    return f"{number:012}"
