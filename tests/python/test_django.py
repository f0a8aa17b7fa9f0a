"""Django's admin behind the real nginx: by WSGI and by ASGI, with the configuration of the examples."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from conftest import environment, python

EXAMPLES = os.path.join(os.path.dirname(__file__), "../../examples/servers")
SETTINGS = """
INSTALLED_APPS += ["notes"]
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
STATIC_ROOT = BASE_DIR / "static"
MEDIA_ROOT = BASE_DIR / "media"
MEDIA_URL = "media/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""
MODELS = """
from django.db import models

class Note(models.Model):
    text = models.CharField(max_length=200)
    attachment = models.FileField(upload_to="attachments", blank=True)
"""
ADMIN = """
from django.contrib import admin
from notes.models import Note

class NoteAdmin(admin.ModelAdmin):
    list_display = ["text", "attachment"]
    search_fields = ["text"]

admin.site.register(Note, NoteAdmin)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project as Django's documentation begins one, with one application that the admin knows."""
    directory = tmp_path_factory.mktemp("django")

    def manage(*words):
        variables = {**environment(), "DJANGO_SUPERUSER_PASSWORD": "secret"}
        done = subprocess.run([sys.executable, "manage.py", *words], cwd=directory, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    done = python("-m", "django", "startproject", "mysite", str(directory))
    assert done.returncode == 0, done.stderr
    with open(directory / "mysite/settings.py", "a") as settings:
        settings.write(SETTINGS)
    (directory / "notes").mkdir()
    for name, text in (("__init__", ""), ("models", MODELS), ("admin", ADMIN)):
        (directory / "notes" / (name + ".py")).write_text(text)
    manage("makemigrations", "notes")
    manage("migrate")
    manage("collectstatic", "--noinput")
    manage("createsuperuser", "--noinput", "--username", "admin", "--email", "admin@example.org")
    return directory


@pytest.fixture
def nginx(tmp_path):
    """Starts nginx with servers of a configuration."""
    started = []

    def start(servers):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        temporary = "".join("%s_temp_path %s/%s; " % (name, tmp_path, name) for name in ("client_body", "fastcgi", "proxy", "uwsgi", "scgi"))
        configuration = tmp_path / "nginx.conf"
        configuration.write_text(
            "user root; daemon off; pid %s/pid; error_log %s/error.log; events {} http { access_log off; %s %s }"
            % (tmp_path, tmp_path, temporary, servers.replace("listen 80", "listen 127.0.0.1:%d" % port))
        )
        started.append(subprocess.Popen(["nginx", "-c", str(configuration), "-e", str(tmp_path / "start.log")]))
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return "http://127.0.0.1:%d" % port
            time.sleep(0.02)
        raise AssertionError("nginx does not listen (is it installed? tests/run installs it)")

    yield start
    for server in started:
        server.terminate()
        server.wait(30)


class Browser:
    """Fills in forms, with the cookies and tokens that belong to them."""

    def __init__(self, base):
        self.base = base
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def get(self, path):
        with self.opener.open(self.base + path, timeout=30) as answer:
            return answer.read()

    def post(self, path, fields, files=()):
        token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path)).group(1)
        parts = [(b'name="%s"' % name.encode(), value.encode()) for name, value in fields.items()]
        parts += [(b'name="%s"; filename="a.bin"' % name.encode(), value) for name, value in files]
        parts.append((b'name="csrfmiddlewaretoken"', token))
        body = b"".join(b"--xyz\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % part for part in parts) + b"--xyz--\r\n"
        request = urllib.request.Request(self.base + path, body, {"Content-Type": "multipart/form-data; boundary=xyz"})
        with self.opener.open(request, timeout=30) as answer:
            return answer.read().decode()


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_the_admin(serve, nginx, project, interface):
    address = serve("--workers", "2", "--app", "mysite.%s:application" % interface, cwd=project)
    with open(os.path.join(EXAMPLES, "nginx-django.conf")) as example:
        servers = example.read()
    for theirs, ours in (("/path/to", os.path.abspath(EXAMPLES)), ("/srv/mysite", str(project)), ("/run/mysite.sock", address)):
        assert theirs in servers
        servers = servers.replace(theirs, ours)
    browser = Browser(nginx(servers))
    assert "Site administration" in browser.post("/admin/login/?next=/admin/", {"username": "admin", "password": "secret"})
    # More than Django keeps in memory, more than nginx does, every byte value.
    data = os.urandom(3 << 20)
    text = "by %s: \u20ac" % interface
    page = browser.post("/admin/notes/note/add/", {"text": text}, [("attachment", data)])
    assert "was added successfully" in page
    browser.post("/admin/notes/note/add/", {"text": "another"})
    page = browser.get("/admin/notes/note/?q=" + urllib.parse.quote(text)).decode()
    assert page.count("field-text") == 1 and text in page
    assert browser.get(re.search(r'href="(/media/attachments/[^"]+)"', page).group(1)) == data
    with open(project / "static/admin/css/base.css", "rb") as style:
        assert browser.get("/static/admin/css/base.css") == style.read()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        browser.get("/no/such/page")
