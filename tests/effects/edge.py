"""POST /orders with an Idempotency-Key: edge.py DATABASE_URL PORT LOCK_FOR. Nothing but SQL functions."""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore

import psycopg
from psycopg.types.json import Jsonb

DATABASE_URL, PORT, LOCK_FOR = sys.argv[1:]
connections = BoundedSemaphore(20)


class Edge(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {}, b"here")

    def do_POST(self):
        user, key = self.headers["X-User"], self.headers["Idempotency-Key"]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not user or not key:
            return self.answer(400, {}, b"an Idempotency-Key is needed")
        with connections, psycopg.connect(DATABASE_URL, autocommit=True) as database:
            self.answer(*order_once(database, user, key, body))

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def order_once(database, user, key, body):
    wanted = json.loads(body)
    item, cents = str(wanted["item"]), int(wanted["cents"])  # before a key is taken
    request = hashlib.sha256(b"POST /orders\n" + body).hexdigest()
    begin = "select * from idempotency_begin(%s, %s, %s, %s::interval, '24 hours')"
    outcome, token, status, headers, stored = database.execute(begin, [user, key, request, LOCK_FOR]).fetchone()
    if outcome == "in_progress":
        return 409, {"Retry-After": "1"}, b"in progress"
    if outcome == "mismatch":
        return 422, {}, b"this key was used with another request"
    if outcome == "replay":
        return status, headers | {"Idempotency-Replayed": "true"}, stored
    try:
        with database.transaction():
            headers, response = place_order(database, user, item, cents)
            database.execute("select idempotency_complete(%s, %s, %s, %s)", [token, 201, Jsonb(headers), response])
        return 201, headers, response
    except psycopg.Error as error:
        if error.sqlstate == "OX001":  # another took over meanwhile
            return 409, {"Retry-After": "1"}, b"in progress"
        database.execute("select idempotency_release(%s)", [token])
        return 503, {"Retry-After": "1"}, b"try again"


def place_order(database, user, item, cents):
    insert = "insert into orders (customer, item, cents) values (%s, %s, %s) returning id"
    order = database.execute(insert, [user, item, cents]).fetchone()[0]
    event = """insert into outbox (aggregate_type, aggregate_id, event_type, payload)
               values ('orders', %s, 'OrderPlaced', %s)"""
    database.execute(event, [f"order-{order}", Jsonb({"order": order, "user": user, "cents": cents})])
    return {"Location": f"/orders/{order}"}, json.dumps({"order": order}).encode()


class Server(ThreadingHTTPServer):
    request_queue_size = 256


Server(("127.0.0.1", int(PORT)), Edge).serve_forever()
