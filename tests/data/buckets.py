"""A real S3 server on this machine, which this process and its children find by their environment."""

from contextlib import contextmanager

import pytest

from clarp.data.stores import _file_system


@contextmanager
def s3_server(*environments):
    """Start it, with its address and credentials in the given environments; it ends with the context."""
    s3fs = pytest.importorskip("s3fs", reason='needs pip install "clarp[remote]"')
    moto = pytest.importorskip("moto.server", reason="needs moto")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    said = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for environment in environments:
                for name, value in said.items():
                    patch.setitem(environment, name, value)
            # Connections of this process to another server, of an earlier test, are of no use.
            s3fs.S3FileSystem.clear_instance_cache()
            _file_system.cache_clear()
            yield
    finally:
        server.stop()
