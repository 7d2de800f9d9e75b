"""A daemon that is not there: HTTP and WebSockets over a unix socket with canned answers, for tests of the command line alone."""
import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading


class WebSocket:
    """The server's side of one WebSocket, as little of RFC 6455 as the tests need."""

    TEXT, BINARY, CLOSE = 1, 2, 8

    def __init__(self, stream):
        self.stream = stream

    def send(self, opcode, data=b""):
        head = bytes([0x80 | opcode])
        if len(data) < 126:
            head += bytes([len(data)])
        elif len(data) < 65536:
            head += bytes([126]) + struct.pack(">H", len(data))
        else:
            head += bytes([127]) + struct.pack(">Q", len(data))
        self.stream.write(head + data)
        self.stream.flush()

    def read(self):
        """(opcode, data); (CLOSE, b"") where the client is gone."""
        head = self.stream.read(2)
        if len(head) < 2:
            return self.CLOSE, b""
        size = head[1] & 127
        if size == 126:
            size = struct.unpack(">H", self.stream.read(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.stream.read(8))[0]
        mask = self.stream.read(4)
        data = self.stream.read(size)
        return head[0] & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(data))


class FakeApi:
    """Answers with what `routes` says: {"GET /1.0/x": metadata, or a function of the request, or an Answer}."""

    def __init__(self, path):
        self.path = path
        self.routes = {"GET /1.0": {"environment": {"server": "fake", "server_version": "0"}, "config": {}}}
        self.sockets = {}  # secret -> function(WebSocket)
        self.requests = []  # (method, target, headers, body)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def close(self):
        # A thread in accept() would go on with whoever gets the descriptor's number next.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join()
        self.listener.close()
        os.unlink(self.path)

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        stream = client.makefile("rwb")
        try:
            while self.serve_one(stream):
                pass
        except (OSError, ValueError):
            pass
        finally:
            try:
                stream.close()
            except OSError:
                pass
            client.close()

    def serve_one(self, stream):
        line = stream.readline().decode()
        if not line:
            return False
        method, target, _ = line.split(" ")
        headers = {}
        while (field := stream.readline().decode().strip()) != "":
            name, value = field.split(":", 1)
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        if headers.get("transfer-encoding") == "chunked":
            while (size := int(stream.readline(), 16)) > 0:
                body += stream.read(size)
                stream.readline()
            stream.readline()
        self.requests.append((method, target, headers, body))
        if "upgrade" in headers:
            self.upgrade(stream, target, headers)
            return False
        self.answer(stream, method, target, body)
        return True

    def upgrade(self, stream, target, headers):
        accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        stream.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        stream.flush()
        name = re.search(r"secret=(\w+)", target)
        self.sockets[name.group(1) if name else target.split("?")[0]](WebSocket(stream))

    def answer(self, stream, method, target, body):
        path = target.split("?")[0]
        route = self.routes.get(f"{method} {target}", self.routes.get(f"{method} {path}"))
        if callable(route):
            route = route(json.loads(body) if body else None)
        if route is None and method == "GET":
            route = Answer.error(404, "not found")
        if not isinstance(route, Answer):
            route = Answer(200, {"type": "sync", "status": "Success", "status_code": 200, "metadata": route})
        text = json.dumps(route.body).encode()
        head = f"HTTP/1.1 {route.status} X\r\nContent-Type: application/json\r\nETag: abc\r\nContent-Length: {len(text)}\r\n\r\n"
        stream.write(head.encode() + text)
        stream.flush()


class Answer:
    def __init__(self, status, body):
        self.status = status
        self.body = body

    @staticmethod
    def error(status, text):
        return Answer(status, {"type": "error", "error": text, "error_code": status, "metadata": None})

    @staticmethod
    def operation(identity="op", metadata=None):
        return Answer(202, {"type": "async", "status_code": 100, "operation": f"/1.0/operations/{identity}",
                            "metadata": {"id": identity, "status_code": 103, "metadata": metadata or {}}})
