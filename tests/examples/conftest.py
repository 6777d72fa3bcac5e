"""The page of examples/browser, built once and served from its folder."""

from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread

import pytest

from clarp.models import load

BUILD = Path(__file__).resolve().parents[2] / "examples/browser/build.py"


@pytest.fixture(scope="session")
def builder():
    """examples/browser/build.py."""
    spec = spec_from_file_location("build", BUILD)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def lite():
    return load("efficientnet-lite0")


@pytest.fixture(scope="session")
def folder(builder, tmp_path_factory):
    """The page with its model, by the command line."""
    out = tmp_path_factory.mktemp("page")
    builder.main(["--out", str(out)])
    return out


class Site(ThreadingHTTPServer):
    """A plain server of static files, which counts what it sends, and can lose files."""

    def __init__(self, folder):
        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=folder)

            def do_GET(self):
                self.server.sent.append(self.path)
                if self.path in self.server.lost:
                    self.send_error(404)
                else:
                    super().do_GET()

            def log_message(self, *told):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.sent, self.lost = [], set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"


@pytest.fixture(scope="session")
def serve():
    """Serve a folder, each time at another address."""
    sites = []

    def served(folder):
        site = Site(folder)
        sites.append(site)
        Thread(target=site.serve_forever, daemon=True).start()
        return site

    yield served
    for site in sites:
        site.shutdown()
        site.server_close()


@pytest.fixture(scope="session")
def site(folder, serve):
    return serve(folder)
