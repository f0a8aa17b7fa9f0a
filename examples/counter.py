# An application by the rules of WSGI: what stands outside of the function stays from request to request.
requests = 0


def application(environ, start_response):
    global requests
    requests += 1
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"Hello world!<br>Request number %d." % requests]
