# query: a=1
"""An application that starts itself as a CGI program is a CGI program."""
from wsgiref.handlers import CGIHandler


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("%s %s" % (environ["QUERY_STRING"], environ["wsgi.run_once"])).encode()]


CGIHandler().run(application)
