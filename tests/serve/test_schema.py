"""Requests made up from the API's own description: every answer is one that the description announces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarp.serve.app import application
from colours import written
from serve.servers import photo, served, serving

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow

PHOTOS = st.one_of(st.sampled_from([photo(seed=seed) for seed in range(3)]), st.binary(max_size=300))
for kind in ("application/octet-stream", "image/jpeg", "image/png"):
    schemathesis.openapi.media_type(kind, PHOTOS)
OPERATIONS = {
    "about": "GET",
    "classes": "GET",
    "class": "GET",
    "predict": "POST",
    "explain": "POST",
    "picture": "POST",
    "mask": "POST",
}


def description(address):
    found = schemathesis.openapi.from_url(f"{address}/api/openapi.json")
    assert {path.removeprefix("/api/") for path in found} == set(OPERATIONS)
    return found


@pytest.fixture(scope="module")
def described(address):
    return description(address)


@pytest.fixture(scope="module", params=["findings", "finding"])
def described_task(request, tmp_path_factory):
    """Of a server of one model, multilabel or binary."""
    with serving(application(served(written(tmp_path_factory.mktemp("colours"), request.param)))) as url:
        yield description(url)


def make_up(description, name, mode, count):
    """A class that fits the description need not be one of the model's, nor bytes a photo: those may be refused."""
    operation = description[f"/api/{name}"][OPERATIONS[name]]

    @settings(max_examples=count)
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    def made_up(case):
        case.call_and_validate(excluded_checks=[schemathesis.checks.positive_data_acceptance], timeout=30)

    made_up()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for name in OPERATIONS
        for mode in ("POSITIVE", "NEGATIVE")
        if (name, mode) != ("about", "NEGATIVE")  # without arguments there are no wrong ones
    ],
)
def test_made_up_requests(described, name, mode):
    make_up(described, name, mode, 150)


@pytest.mark.parametrize("name", OPERATIONS)
def test_made_up_requests_to_a_model_of_another_task(described_task, name):
    make_up(described_task, name, "POSITIVE", 30)
