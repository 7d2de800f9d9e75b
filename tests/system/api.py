"""The REST API over the unix socket, without a client in between: for tests that count on exact moments."""
import http.client
import json
import socket
import urllib.parse


class ApiError(Exception):
    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Disconnected(Exception):
    """The daemon went away in the middle of a request."""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    def __init__(self, path, timeout=120):
        self.path, self.timeout = path, timeout

    def raw(self, method, url, body=None, headers=None):
        connection = UnixConnection(self.path, self.timeout)
        try:
            connection.request(method, url, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        except (ConnectionError, http.client.HTTPException, FileNotFoundError) as error:
            raise Disconnected(str(error)) from error
        finally:
            connection.close()

    def __call__(self, method, url, data=None, wait=True):
        """The metadata of the answer; of an operation, once it has ended (its failure is an ApiError)."""
        body = None if data is None else json.dumps(data)
        status, text = self.raw(method, url, body, {"Content-Type": "application/json"} if body is not None else {})
        answer = json.loads(text)
        if answer["type"] == "error":
            raise ApiError(answer["error_code"], answer["error"])
        if answer["type"] == "async" and wait:
            return self.wait(answer["metadata"]["id"])
        return answer["metadata"]

    def wait(self, operation):
        done = self("GET", f"/1.0/operations/{operation}/wait?timeout=100")
        if done["status_code"] != 200:
            raise ApiError(done["status_code"], done["err"])
        return done

    def import_image(self, path, alias):
        with open(path, "rb") as f:
            data = f.read()
        status, text = self.raw("POST", "/1.0/images", data, {"Content-Type": "application/octet-stream", "X-Incus-filename": "image.tar.gz",
                                                              "X-Incus-aliases": urllib.parse.urlencode({"alias": alias})})
        answer = json.loads(text)
        if answer["type"] == "error":
            raise ApiError(answer["error_code"], answer["error"])
        return self.wait(answer["metadata"]["id"])["metadata"]["fingerprint"]

    def exists(self, url):
        try:
            self("GET", url)
            return True
        except ApiError as error:
            if error.code == 404:
                return False
            raise
