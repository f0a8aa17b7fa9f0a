# A JSON API, as an application by the rules of WSGI: POST {"a": 1, "b": 2} is answered with their sum.
import json


def application(environ, start_response):
    def answer(status, value):
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(value, separators=(",", ":")).encode()]

    if environ["REQUEST_METHOD"] != "POST":
        return answer("405 Method Not Allowed", {"error": "use POST"})
    try:
        numbers = json.load(environ["wsgi.input"])
        return answer("200 OK", {"sum": numbers["a"] + numbers["b"]})
    except (ValueError, TypeError, KeyError):
        return answer("400 Bad Request", {"error": "send numbers a and b"})
