"""The stock system: JSON over HTTP, in memory. `python3 examples/bridge/stock PORT`

It knows nothing of Crosstie, and needs nothing but Python.

    GET    /articles/NAME       {"article": NAME, "pieces": how many can be had}
    PUT    /reservations/ORDER  takes {"items": [{"article": NAME, "quantity": 2}]} out; all of it, or 409 and nothing
    DELETE /reservations/ORDER  puts it back

PUT and DELETE may be repeated: the second time changes nothing.
"""

import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

pieces = {"lamp": 5, "chair": 2}
reservations = {}
lock = Lock()


def reserve(order, items):
    wanted = Counter()
    for item in items:
        wanted[item["article"]] += item["quantity"]
    with lock:
        if order in reservations:
            return 200, {"order": order}
        for article, quantity in wanted.items():
            if quantity > pieces.get(article, 0):
                return 409, {"detail": f"{pieces.get(article, 0)} of {article} can be had, not {quantity}"}
        for article, quantity in wanted.items():
            pieces[article] -= quantity
        reservations[order] = wanted
    return 201, {"order": order}


def give_back(order):
    with lock:
        for article, quantity in reservations.pop(order, {}).items():
            pieces[article] += quantity
    return 204, None


class Stock(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.removeprefix("/articles/")
        if name in pieces:
            self.answer(200, {"article": name, "pieces": pieces[name]})
        else:
            self.answer(404, {"detail": f"there is no {name}"})

    def do_PUT(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(*reserve(self.path.removeprefix("/reservations/"), asked["items"]))

    def do_DELETE(self):
        self.answer(*give_back(self.path.removeprefix("/reservations/")))

    def answer(self, status, body):
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if body is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Stock).serve_forever()
