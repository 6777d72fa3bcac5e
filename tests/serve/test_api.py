"""The API over real connections to a real server on loopback."""

import asyncio
import base64
import json
import socket
import tempfile
import time
from dataclasses import replace
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

import clarp
from clarp.method import BASELINES
from clarp.render import PALETTES, STYLES, Look
from clarp.serve.app import application
from clarp.serve.engine import Engine, Question
from clarp.serve.guard import Hosts
from clarp.serve.limits import Limits
from serve.servers import LABELS, SIDE, Slow, engine, photo, serving, until


def detail(response, status):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    return response.json()["detail"]


class TestAnswers:
    def test_about(self, client):
        about = client.get("/api/about").json()
        assert [model["name"] for model in about["models"]] == ["toy", "other"]
        assert [method["name"] for method in about["methods"]] == list(clarp.methods())
        assert {method["name"] for method in about["methods"] if not method["has_rivals"]} == {"lrp", "clrp2"}
        assert {method["name"]: method["when"] for method in about["methods"]} == {
            name: clarp.Method.named(name).when for name in clarp.methods()
        }
        assert [(one["name"], one["definition"]) for one in about["baselines"]] == [
            ("gradcam", BASELINES["gradcam"])
        ]
        assert about["baselines"][0]["when"].startswith("To compare")
        assert about["styles"] == list(STYLES)
        assert {
            one["name"]: (one["speaks_for"], one["speaks_against"]) for one in about["colours"]
        } == PALETTES
        assert about["limits"]["photo_bytes"] == Limits().photo_bytes

    def test_classes(self, client):
        assert client.get("/api/classes", params={"model": "other"}).json() == {
            "model": "other",
            "labels": list(LABELS),
        }

    @pytest.mark.parametrize(
        ("name", "meant", "near"),
        [
            ("BEE", 1, []),
            ("hound", 3, []),
            ("2", 2, []),
            ("bees", None, ["bee"]),
            ("hond", None, ["dog, hound"]),
            ("xyzzy", None, []),
            ("17", None, []),
        ],
    )
    def test_class_is_the_one_that_the_command_line_takes(self, client, name, meant, near):
        answer = client.get("/api/class", params={"model": "other", "name": name}).json()
        assert answer["model"] == "other"
        assert answer["meant"] == meant
        assert [one["label"] for one in answer["near"]] == near
        assert [LABELS[one["class"]] for one in answer["near"]] == near
        if meant is None:
            with pytest.raises(ValueError, match="no class") as refused:
                engine("other").classifier.class_index(name)
            assert answer["problem"] == str(refused.value)
        else:
            assert answer["problem"] == ""

    def test_several_classes_of_one_name_are_all_told(self):
        crane = replace(engine().classifier, labels=("crane", "bee", "crane", "dog"))
        with serving(application([Engine("toy", "toy", crane, Limits())])) as url:
            answer = httpx.get(f"{url}/api/class", params={"name": "Crane"}).json()
        assert answer["meant"] is None
        assert [one["class"] for one in answer["near"]] == [0, 2]
        assert "ambiguous" in answer["problem"]

    def test_predict_is_the_engines_answer(self, client, toy):
        answer = client.post("/api/predict", params={"top": 2}, content=photo()).json()
        assert answer == toy.predict(photo(), 2).model_dump(mode="json", by_alias=True)
        assert list(answer["predictions"][0]) == ["class", "label", "probability"]

    def test_explain_is_the_engines_answer(self, client, toy):
        query = {"target": ["dog, hound", "1"], "against": ["ant"], "method": ["sglrp", "lrp"]}
        answer = client.post("/api/explain", params=query, content=photo()).json()
        question = Question(("dog, hound", "1"), ("ant",), ("sglrp", "lrp"))
        assert answer == toy.explain(photo(), question, lambda: False).model_dump(mode="json", by_alias=True)
        heatmap = np.load(BytesIO(base64.b64decode(answer["maps"][0]["heatmap"])))
        assert heatmap.shape == (SIDE, SIDE)

    def test_one_scale_over_the_maps_of_a_method(self, client):
        query = {"target": ["ant", "bee"], "method": "lrp"}
        for same, count in (("true", 1), ("false", 2)):
            answer = client.post("/api/explain", params={**query, "same_scale": same}, content=photo()).json()
            assert len({one["scale"]["limit"] for one in answer["maps"]}) == count

    def test_picture(self, client):
        response = client.post("/api/picture", params={"target": "bee", "method": "lrp"}, content=photo())
        assert response.headers["content-type"] == "image/png"
        assert Image.open(BytesIO(response.content)).width > 450

    @pytest.mark.parametrize("style", STYLES)
    def test_styles(self, client, toy, style):
        targets = ("bee", "ant") if style == "versus" else ("bee",)
        query = {"target": targets, "method": "lrp", "style": style}
        answer = client.post("/api/explain", params=query, content=photo()).json()
        question = Question(targets, (), ("lrp",), look=Look(style))
        assert answer == toy.explain(photo(), question, lambda: False).model_dump(mode="json", by_alias=True)
        assert answer["style"] == style
        whole = client.post("/api/picture", params=query, content=photo())
        assert whole.content == toy.picture(photo(), question, lambda: False)

    @pytest.mark.parametrize(
        "chosen",
        [
            {"colours": "bam"},
            {"smoothing": 0.0},
            {"smoothing": 0.04, "style": "contours"},
            {"opacity": 0.5},
            {"size": 96, "caption": False},
        ],
    )
    def test_every_option_of_a_look(self, client, toy, chosen):
        query = {"target": "bee", "method": "lrp"}
        answer = client.post("/api/explain", params=query | chosen, content=photo()).json()
        question = Question(("bee",), (), ("lrp",), look=Look(**chosen))
        assert answer == toy.explain(photo(), question, lambda: False).model_dump(mode="json", by_alias=True)
        assert (answer["colours"], answer["smoothing"]) == (question.look.colours, question.look.sigma)
        drawn = client.post("/api/picture", params=query | chosen, content=photo()).content
        assert drawn == toy.picture(photo(), question, lambda: False)
        assert drawn != client.post("/api/picture", params=query, content=photo()).content

    def test_mask_is_the_engines_answer(self, client, toy):
        query = {"region": ["0,0,12,24", "12,0,14,3"], "class": "cow", "fill": "blur"}
        answer = client.post("/api/mask", params=query, content=photo()).json()
        expected = toy.mask(photo(), [(0, 0, 12, 24), (12, 0, 14, 3)], "blur", ["cow"])
        assert answer == expected.model_dump(mode="json", by_alias=True)

    def test_a_mask_of_many_rectangles(self, client):
        regions = [f"{i % SIDE},{i % 7},{i % SIDE + 1},{SIDE}" for i in range(Limits().regions)]
        assert client.post("/api/mask", params={"region": regions}, content=photo()).status_code == 200

    def test_another_model(self, client):
        assert (
            client.post("/api/predict", params={"model": "other"}, content=photo()).json()["model"] == "other"
        )

    def test_the_description_has_types_and_errors(self, client):
        described = client.get("/api/openapi.json").json()
        assert set(described["paths"]) == {
            f"/api/{name}" for name in ("about", "classes", "class", "predict", "explain", "picture", "mask")
        }
        explain = described["paths"]["/api/explain"]["post"]
        assert {"200", "401", "413", "422", "503", "504"} <= set(explain["responses"])
        for status, response in explain["responses"].items():
            schema = response["content"]["application/json"]["schema"]["$ref"]
            assert schema.endswith("Explained" if status == "200" else "ProblemAnswer")
        schemas = described["components"]["schemas"]
        for name, schema in schemas.items():
            assert schema.get("description"), name
        for field in ("heatmap", "pictures", "python", "ledger"):
            assert schemas["Map"]["properties"][field]["description"]

    def test_there_is_no_page_that_loads_scripts_from_elsewhere(self, client):
        for path in ("/docs", "/redoc"):
            assert client.get(path).status_code == 404


class TestThePagesFiles:
    def test_what_the_page_names_is_there(self, client):
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        for name in ("app.js", "style.css", "icon.svg", "look.js", "cat_and_coffee.jpg"):
            assert client.get(f"/page/{name}").status_code == 200
        assert "javascript" in client.get("/page/app.js").headers["content-type"]

    def test_nothing_comes_from_another_host(self, client):
        for name in (
            "index.html",
            "style.css",
            "app.js",
            "api.js",
            "board.js",
            "cards.js",
            "classes.js",
            "look.js",
        ):
            assert "http" not in client.get(f"/page/{name}").text.replace("http://www.w3.org/2000/svg", "")

    @pytest.mark.parametrize(
        "path",
        [
            "/page/../app.py",
            "/page/..%2fapp.py",
            "/page/%2e%2e/app.py",
            "/page/..%5capp.py",
            "/page//etc/passwd",
            "/page/%2fetc%2fpasswd",
            "/page/app.js%00.png",
            "/page/",
            "/page/.",
            "/page/__init__.py",
            "/page/C:%5cwindows%5cwin.ini",
            "/etc/passwd",
            "//etc/passwd",
        ],
    )
    def test_no_path_reaches_the_file_system(self, address, path):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:  # httpx would tidy the path up
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
        assert b"root:" not in answer


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "query", "status", "message"),
        [
            ("predict", {"model": "vgg"}, 404, "no model 'vgg' here, expected one of toy, other"),
            ("predict", {"model": "../toy"}, 404, "no model"),
            ("predict", {"top": "0"}, 422, "top is '0': Input should be greater"),
            ("predict", {"top": "many"}, 422, "top is 'many'"),
            ("explain", {"method": "slrpp"}, 422, "Did you mean slrp"),
            ("explain", {"method": "file.py:evil"}, 422, "unknown method"),
            ("explain", {"target": "antelope"}, 422, "toy has no class 'antelope'"),
            ("explain", {"target": "9"}, 422, "no class 9"),
            ("explain", {"target": ""}, 422, "target"),
            ("explain", {"target": "x" * 201}, 422, "200 characters"),
            ("explain", {"target": ["0"] * 7}, 422, "at most 6"),
            ("explain", {"target": "0", "against": "ant"}, 422, "target and against are both 'ant'"),
            ("explain", {"target": list("012301"), "method": list(clarp.methods())}, 422, "48 maps"),
            ("picture", {"method": "x"}, 422, "unknown method"),
            ("picture", {"style": "pie"}, 422, "style is 'pie': Input should be 'overlay', 'pixels'"),
            ("picture", {"colours": "jet"}, 422, "colours is 'jet': Input should be 'vik' or 'bam'"),
            (
                "explain",
                {"smoothing": "0.3"},
                422,
                "smoothing is '0.3': Input should be less than or equal to 0.25",
            ),
            ("explain", {"smoothing": "NaN"}, 422, "smoothing is 'NaN': Input should be a finite number"),
            (
                "picture",
                {"opacity": "-0.1"},
                422,
                "opacity is '-0.1': Input should be greater than or equal to 0",
            ),
            ("picture", {"opacity": "inf"}, 422, "opacity is 'inf'"),
            ("picture", {"size": "2049"}, 422, "size is '2049': Input should be less than or equal to 2048"),
            ("explain", {"size": "31"}, 422, "size is '31': Input should be greater than or equal to 32"),
            ("picture", {"caption": "maybe"}, 422, "caption is 'maybe'"),
            (
                "explain",
                {"target": list("0123"), "size": "1500"},
                422,
                "4 maps of 1500 x 1500 pixels were asked for, expected at most 8,500,000 pixels in all",
            ),
            ("explain", {"style": "versus"}, 422, "two classes at once, and target names 0"),
            ("picture", {"style": "versus", "target": "bee"}, 422, "two classes at once, and target names 1"),
            ("picture", {"target": ["bee", "ant"]}, 422, "in the style overlay is of one class"),
            ("picture", {"target": ["bee", "ant", "cow"]}, 422, "at most 2 items"),
            ("explain", {"style": ""}, 422, "style is ''"),
            ("explain", {"method": "occlusion"}, 422, "clarp compare PHOTO --methods occlusion,ssglrp"),
            ("explain", {"method": "gradcam@0"}, 422, "clarp compare PHOTO --methods gradcam@0,ssglrp"),
            ("mask", {}, 422, "region"),
            ("mask", {"region": "1,2,3"}, 422, "region"),
            ("mask", {"region": "1,2,3,x"}, 422, "region"),
            ("mask", {"region": "-1,2,3,4"}, 422, "region"),
            ("mask", {"region": "0,0,25,24"}, 422, "not inside the picture"),
            ("mask", {"region": "0,0,1,1", "fill": "noise"}, 422, "fill is 'noise'"),
            ("mask", {"region": ["0,0,1,1"] * 1001}, 422, "at most 1000"),
        ],
    )
    def test_arguments(self, client, path, query, status, message):
        assert message in detail(client.post(f"/api/{path}", params=query, content=photo()), status)

    def test_a_form_is_told_what_to_send(self, client):
        response = client.post("/api/predict", files={"file": photo()})
        assert "curl --data-binary" in detail(response, 415)

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "predict", 405), ("PUT", "about", 405), ("POST", "nothing", 404)],
    )
    def test_other_ways(self, client, method, path, status):
        detail(client.request(method, f"/api/{path}"), status)

    def test_a_failure_of_ours_is_in_the_log_and_not_in_the_answer(self, capsys):
        broken = engine()
        broken.predict = lambda *_: 1 / 0
        with serving(application([broken])) as url:
            response = httpx.post(f"{url}/api/predict", content=photo())
            assert detail(response, 500) == "the server failed with a ZeroDivisionError; its log says more."
            assert response.headers["x-content-type-options"] == "nosniff"
            assert httpx.get(f"{url}/api/about").status_code == 200
        assert "1 / 0" in capsys.readouterr().err

    def test_token(self):
        with serving(application([engine()], token="a-token-of-some-length")) as url:
            assert "Authorization: Bearer" in detail(httpx.get(f"{url}/api/about"), 401)
            headers = {"Authorization": "Bearer a-token-of-some-length"}
            assert httpx.get(f"{url}/api/about", headers=headers).status_code == 200
            assert httpx.get(f"{url}/api/about?token=a-token-of-some-length").status_code == 401
            assert httpx.get(url).status_code == 200

    def test_a_page_elsewhere_cannot_ask_nor_pose_as_this_host(self, client):
        detail(client.post("/api/predict", content=photo(), headers={"Origin": "http://evil.com"}), 403)
        detail(client.post("/api/predict", content=photo(), headers={"Host": "evil.com"}), 400)
        named = application([engine()], Hosts.of("0.0.0.0", ["clarp.lab"]))
        with serving(named) as url:
            assert httpx.get(url, headers={"Host": "clarp.lab"}).status_code == 200


class TestUploads:
    @pytest.mark.parametrize(
        ("more", "body"),
        [("", b"x" * 26_214_401), ("Expect: 100-continue\r\n", b"")],
        ids=["sent", "announced"],
    )
    def test_too_many_bytes(self, address, more, body):
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as sending:
            head = f"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 26214401\r\n{more}\r\n"
            sending.sendall(head.encode() + body)
            began = time.monotonic()
            answer = b"".join(iter(lambda: sending.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"26,214,400 bytes" in answer
        assert time.monotonic() - began < 1.5

    def test_too_many_bytes_in_pieces(self):
        def pieces():
            for _ in range(40):
                yield b"x" * 1000

        with serving(application([engine()], limits=Limits(photo_bytes=20_000))) as url:
            assert "20,000 bytes" in detail(httpx.post(f"{url}/api/predict", content=pieces()), 413)
            assert httpx.post(f"{url}/api/predict", content=photo()).status_code == 200

    def test_a_photo_that_never_arrives(self):
        app = application([engine()], limits=Limits(upload_seconds=0.3))
        with (
            serving(app) as url,
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as sending,
        ):
            sending.sendall(
                b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc"
            )
            assert sending.recv(4096).startswith(b"HTTP/1.1 408")
            worker = app.app.state.service.workers["toy"]
            until(lambda: worker.taken == 0)
            assert app.app.state.service.bytes_held == 0

    def test_all_uploads_together_are_bounded(self):
        slow = Slow()
        app = application([slow], limits=Limits(bytes_at_once=10_000))
        with serving(app) as url:
            with httpx.Client(base_url=url, timeout=20) as first, _asking(url, photo((50, 30))):
                until(lambda: slow.begun == 1)
                refused = first.post("/api/predict", content=b"x" * 9_000)
                assert "busy" in detail(refused, 503)
                assert refused.headers["retry-after"] == "2"
                slow.go.set()
            until(lambda: app.app.state.service.bytes_held == 0)

    def test_the_disk_is_never_touched(self, tmp_path, monkeypatch, client):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        opened = []
        monkeypatch.setattr("tempfile.TemporaryFile", lambda *a, **k: opened.append(a))
        monkeypatch.setattr("tempfile._TemporaryFileWrapper", lambda *a, **k: opened.append(a))
        large = photo((1500, 1500))
        assert len(large) > 4 * 2**20
        assert client.post("/api/explain", content=large).status_code == 200
        assert not opened
        assert not list(tmp_path.iterdir())


def _asking(url, data, path="predict"):
    """A connection on which a question was asked, and the answer not read."""
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    head = f"POST /api/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


class TestTheQueue:
    def test_busy_says_when_to_come_back(self):
        slow = Slow()
        with serving(application([slow], limits=Limits(waiting=1))) as url:
            with _asking(url, photo()), _asking(url, photo()):
                until(lambda: slow.begun == 1)
                time.sleep(0.1)
                began = time.monotonic()
                refused = httpx.post(f"{url}/api/predict", content=photo())
                assert time.monotonic() - began < 5
                assert "busy" in detail(refused, 503)
                assert int(refused.headers["retry-after"]) >= 1
                assert httpx.get(f"{url}/api/about").status_code == 200
                slow.go.set()
            assert httpx.post(f"{url}/api/predict", content=photo()).status_code == 200

    def test_busy_is_heard_by_who_is_still_sending(self):
        slow = Slow()
        with serving(application([slow], limits=Limits(waiting=0))) as url, _asking(url, photo()):
            until(lambda: slow.begun == 1)
            refused = httpx.post(f"{url}/api/predict", content=b"x" * 20 * 2**20)
            assert "busy" in detail(refused, 503)
            slow.go.set()

    def test_who_hangs_up_frees_the_place_and_costs_no_work(self, capsys):
        slow = Slow()
        app = application([slow], limits=Limits(waiting=1))
        with serving(app) as url, _asking(url, photo()):
            service = app.app.state.service
            until(lambda: slow.begun == 1)
            for _ in range(5):
                with _asking(url, photo()):
                    until(lambda: service.workers["slow"].taken == 2)
                until(lambda: service.workers["slow"].taken == 1)
            assert service.bytes_held == len(photo())
            slow.go.set()
            until(lambda: service.workers["slow"].taken == 0)
            assert slow.begun == 1
        assert "Traceback" not in capsys.readouterr().err

    def test_who_hangs_up_while_uploading(self):
        app = application([engine()])
        with serving(app) as url:
            service = app.app.state.service
            connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
            connection.sendall(
                b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n"
                + b"x" * 5000
            )
            until(lambda: service.bytes_held == 5000)
            connection.close()
            until(lambda: service.bytes_held == 0 and service.workers["toy"].taken == 0)

    def test_no_answer_in_time(self):
        slow = Slow()
        with serving(application([slow], limits=Limits(seconds=0.2))) as url:
            assert "no answer within 0.2 s" in detail(httpx.post(f"{url}/api/predict", content=photo()), 504)
            slow.go.set()
            until(lambda: httpx.post(f"{url}/api/predict", content=photo()).status_code == 200)

    def test_models_do_not_wait_for_each_other(self):
        slow = Slow()
        with serving(application([slow, engine()])) as url, _asking(url, photo()):
            until(lambda: slow.begun == 1)
            assert httpx.post(f"{url}/api/predict?model=toy", content=photo()).status_code == 200
            slow.go.set()


def test_many_clients_at_once_each_get_their_own_answer(address, toy):
    """Eight photos and four questions, mixed, from fifty clients: byte by byte what the engine says directly."""
    photos = [photo(seed=seed) for seed in range(8)]
    queries = [("sglrp", "0"), ("sglrp", "1"), ("lrp", "2"), ("ssglrp", "3")]
    expected = {
        (seed, query): toy.explain(photos[seed], Question((query[1],), (), (query[0],)), lambda: False)
        for seed in range(8)
        for query in queries
    }

    async def one(client, number):
        for turn in range(3):
            seed, query = (number + turn) % 8, queries[(number * 7 + turn) % 4]
            question = {"method": query[0], "target": query[1]}
            while True:
                response = await client.post("/api/explain", params=question, content=photos[seed])
                if response.status_code != 503:
                    break
                await asyncio.sleep(0.2)
            assert response.status_code == 200, response.text
            assert response.json() == json.loads(expected[seed, query].model_dump_json(by_alias=True))

    async def everybody():
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            await asyncio.gather(*(one(client, number) for number in range(50)))

    asyncio.run(everybody())
