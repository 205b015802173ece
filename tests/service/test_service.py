"""The HTTP service: answers, limits, errors, timelines, and clients that go away."""

import asyncio
import functools
import io
import re
import subprocess
import threading
import time

import numpy as np
import pytest
import soundfile
import torch
from fastapi.testclient import TestClient
from service_requests import FORM, RATE, WAV, Client, part, recording, running

from modeling_gemoclap.inference.classifier import AudioClassifier
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.streaming.scoring import TimelineEngine
from modeling_gemoclap.inference.timeline import TimelineOptions, timeline
from modeling_gemoclap.service import engine, errors
from modeling_gemoclap.service.app import create_app
from modeling_gemoclap.service.engine import identify
from modeling_gemoclap.service.limits import ServiceLimits
from modeling_gemoclap.service.schemas import ErrorResponse, HealthResponse, PredictResponse, TimelineResponse

ENDINGS = "\r\n--b--\r\n"


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("compact", "cpu")


@pytest.fixture
def make_app(pipe, monkeypatch):
    """The application with some limits; without the pause after a refused upload."""
    monkeypatch.setattr(errors, "LINGER_SECONDS", 0.05)

    def make(pipe=pipe, **limits):
        return create_app(pipe, identify(pipe, "compact"), ServiceLimits(**limits))

    return make


@pytest.fixture
def client(make_app):
    with TestClient(make_app(), raise_server_exceptions=False) as client:
        yield client
        assert files_of(client.app) == []


def files_of(app):
    return list(app.state.engine.folder.iterdir())


def error_of(response, status, code):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    ErrorResponse(**response.json())
    assert error["code"] == code
    return error["message"]


def expected(pipe, data, **options):
    return {item["label"]: item["score"] for item in pipe(data, **options)}


# ---- answers --------------------------------------------------------------------------------------------------------
def test_concurrent_requests_share_batches_and_have_the_answers_of_the_pipeline(make_app, pipe):
    clips = [recording(seed, 0.3 + 0.13 * seed) for seed in range(24)]
    options = [{"labels": "furious, gloomy"} if seed % 3 == 0 else {} for seed in range(24)]
    app = make_app(max_batch_delay_ms=200)

    async def ask():
        async with running(app) as client:
            pairs = zip(clips, options, strict=True)
            requests = [client.post("/predict", files={"file": clip}, data=data) for clip, data in pairs]
            return await asyncio.gather(*requests), (await client.get("/health")).json()

    answers, health = asyncio.run(ask())
    for clip, data, answer in zip(clips, options, answers, strict=True):
        words = {"candidate_labels": data["labels"]} if data else {}
        scores = answer.json()["scores"]
        assert scores == pytest.approx(expected(pipe, clip, **words), abs=1e-5)
        assert answer.json()["label"] == next(iter(scores))
    queue = health["queue"]
    assert queue["recordings"] == 24 and 2 <= queue["batches"] <= 6 and queue["requests"] == queue["waiting"] == 0


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_body_and_a_form_have_the_same_answer(client, pipe, format):
    data = recording(1, format=format, rate=22050)
    query = {"labels": ["happy,sad", "angry"], "template": ["a {} voice", "speech that sounds {}"], "gender": "true"}
    by_form = client.post("/predict", files={"audio": ("a.x", data)}, data=query | {"top_k": "2"}).json()
    by_body = client.post("/predict", content=data, params=query | {"top_k": "2"}, headers=WAV).json()
    PredictResponse(**by_form)
    assert by_form.pop("file") == "a.x" and by_body.pop("file") == "recording" and by_form == by_body
    words = {"candidate_labels": ["happy", "sad", "angry"], "hypothesis_template": query["template"]}
    answer = pipe(data, return_gender=True, top_k=2, **words)
    assert by_form["scores"] == pytest.approx({each["label"]: each["score"] for each in answer["emotion"]}, abs=1e-5)
    assert by_form["gender"] == answer["gender"][0]["label"] and len(by_form["scores"]) == 2
    assert by_form["warnings"] == ["the text encoder was not trained on 'that': scores are unreliable"]


def test_a_classifier(make_app, make_model, pipe):
    from modeling_gemoclap import GEmoClapForAudioClassification

    torch.manual_seed(0)
    config = pipe.model.config
    classifier = AudioClassifier(GEmoClapForAudioClassification(config), pipe.processor.feature_extractor, "cpu")
    data = recording(2)
    with TestClient(make_app(classifier)) as client:
        answer = client.post("/predict", content=data, headers=WAV).json()
        [wanted] = classifier([data])
        assert answer["scores"] == pytest.approx({each["label"]: each["score"] for each in wanted}, abs=1e-5)
        words = client.post("/predict", content=data, headers=WAV, params={"labels": "furious,gloomy"})
        assert "a classifier has no prompts" in error_of(words, 422, "invalid_options")
        gender = client.post("/predict", content=data, headers=WAV, params={"gender": "true"})
        assert "emotions only" in error_of(gender, 422, "invalid_options")


def test_health_tells_model_limits_and_queue(make_app, pipe, tmp_path):
    with TestClient(make_app(max_upload_mb=3, max_labels=7)) as client:
        health = HealthResponse(**client.get("/health").json())
    assert health.status == "ok" and health.model == "compact" and re.fullmatch("[0-9a-f]{64}", health.weights_sha256)
    assert health.limits.max_upload_bytes == 3_000_000 and health.limits.max_labels == 7
    assert health.labels == pipe.model.config.emotions and health.device == "cpu"
    (tmp_path / "secret/model").mkdir(parents=True)
    assert identify(pipe, str(tmp_path / "secret/model")).name == "model"


# ---- options --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, message",
    [
        ({"labels": ""}, "labels must be a non-empty list"),
        ({"labels": " , "}, "labels must be a non-empty list"),
        ({"labels": "angry"}, "labels names only 'angry'"),
        ({"labels": "angry,Angry"}, "labels names a word twice"),
        ({"labels": "fear,anxiety"}, "labels: 'fear', 'anxiety' are all 'fearful'"),
        ({"labels": "angry,{sad}"}, "contains braces"),
        ({"labels": "angry,s\x00ad"}, "control characters"),
        ({"labels": "angry," + "a" * 201}, "at most 200 characters"),
        ({"labels": ",".join(f"word{number}" for number in range(100))}, "100 given, and 50 is the limit"),
        ({"template": "a voice"}, "template: the template 'a voice' lacks {}"),
        ({"template": [f"{{}} {number}" for number in range(6)]}, "template: 6 given, and 5 is the limit"),
        ({"top_k": "0"}, "top_k: Input should be greater"),
        ({"top_k": ["1", "2"]}, "top_k is given twice"),
        ({"gender": "perhaps"}, "gender: Input should be a valid boolean"),
        ({"label": "angry"}, "'label' is not an option: choose from labels, template, gender, reject_below, top_k"),
    ],
)
def test_invalid_options(client, options, message):
    for sent in ({"data": options}, {"params": options}):
        answer = client.post("/predict", files={"file": recording()}, **sent)
        assert message in error_of(answer, 422, "invalid_options")


@pytest.mark.parametrize(
    "body, status, code",
    [
        (part("labels", b"angry,\xff") + part("file", b"x", "a"), 422, "invalid_options"),
        (part("labels", b"a" * 20_001), 413, "options_too_large"),
        (part("labels", b"a") * 300, 413, "options_too_large"),
        (part("labels", b"angry,sad"), 422, "no_file"),
        (part("file", b"x", "a") + part("file", b"x", "b"), 422, "several_files"),
        (b"no form", 400, "malformed_form"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n", 400, "malformed_form"),
    ],
)
def test_forms_that_are_refused(client, body, status, code):
    answer = client.post("/predict", content=body + ENDINGS[2:].encode(), headers=FORM)
    error_of(answer, status, code)


def test_forms_of_other_clients(client):
    """Long headers, a recording without a file name, and data after the end."""
    long = client.post("/predict", content=b"--b\r\nX: " + b"a" * 100_000, headers=FORM)
    assert long.status_code in (400, 413), "an old python-multipart has no limit of its own"
    nameless = part("file", recording()).replace(b"\r\n\r\n", b"\r\nContent-Type: audio/wav\r\n\r\n", 1)
    answer = client.post("/predict", content=nameless + ENDINGS[2:].encode() + bytes(2**20), headers=FORM)
    assert answer.status_code == 200 and answer.json()["file"] == "recording"


def test_a_form_that_ends_early_and_other_types(client):
    early = client.post("/predict", content=part("file", recording(), "a.wav"), headers=FORM)
    assert "it ends early" in error_of(early, 400, "malformed_form")
    without = client.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert "boundary" in error_of(without, 400, "malformed_form")
    assert "multipart form" in error_of(client.post("/predict", json={}), 415, "unsupported_media_type")
    assert "multipart form" in error_of(client.post("/predict", data={"a": "b"}), 415, "unsupported_media_type")


# ---- recordings -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("data", [b"", b"no audio", recording(seconds=0.01), recording()[:9000], bytes(40000)])
def test_unusable_recordings_are_named_as_the_client_named_them(client, data):
    for name, shown in {"../../etc/passwd": "passwd", "C:\\x\\clip\a.wav": "clip.wav", "é.wav": "é.wav"}.items():
        body = part("file", data, name) + ENDINGS[2:].encode()
        message = error_of(client.post("/predict", content=body, headers=FORM), 422, "unusable_audio")
        assert message.startswith(f"{shown}: ") and str(client.app.state.engine.folder) not in message
    answer = client.post("/predict", content=data, headers=WAV)
    if data:
        assert error_of(answer, 422, "unusable_audio").startswith("recording: ")
    else:
        assert "send a multipart form" in error_of(answer, 422, "no_file")


def antiphase() -> bytes:
    """Two channels of opposite phase."""
    wave, file = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE), io.BytesIO()
    soundfile.write(file, np.stack([wave, -wave], 1), RATE, format="WAV")
    return file.getvalue()


def wrong_size() -> bytes:
    """A WAV whose header specifies 36 bytes too many."""
    data = bytearray(recording())
    start = data.index(b"data") + 4
    data[start : start + 4] = (int.from_bytes(data[start : start + 4], "little") + 36).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("path", ["/predict", "/timeline"])
@pytest.mark.parametrize(
    "data, remark", [(antiphase(), "its channels cancel out"), (wrong_size(), "its header specifies")]
)
def test_the_client_has_the_warnings_about_its_recording(client, caplog, path, data, remark):
    """Each time, under its own name, and nobody else: neither another client nor the log."""
    for name in ("a.wav", "a.wav", "b.wav"):
        [warning] = client.post(path, files={"file": (name, data)}).json()["warnings"]
        assert warning.startswith(f"{name}: {remark}") and str(client.app.state.engine.folder) not in warning
    assert client.post(path, files={"file": recording()}).json()["warnings"] == []
    assert not caplog.messages


def test_warnings_about_simultaneous_recordings(make_app):
    app, clips = make_app(), [antiphase(), wrong_size(), recording()] * 4

    async def ask():
        async with running(app) as client:
            return await asyncio.gather(*(client.post("/predict", content=clip, headers=WAV) for clip in clips))

    found = [[text.split()[1:4] for text in answer.json()["warnings"]] for answer in asyncio.run(ask())]
    assert found == [[["its", "channels", "cancel"]], [["its", "header", "specifies"]], []] * 4


def chained_ogg():
    return recording(1, 3, "OGG") + recording(2, 3, "OGG")


def silent_header():
    """A WAV whose header counts no samples, as from a pipe."""
    data = bytearray(recording(1, 6))
    data[4:8] = data[40:44] = b"\xff" * 4
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        recording(1, 6),
        recording(1, 6, "FLAC"),
        recording(1, 3, "MP3") + recording(2, 3, "MP3"),
        chained_ogg(),
        silent_header(),
        recording(1, 6, rate=48000),
    ],
    ids=["wav", "flac", "joined mp3", "chained ogg", "wav from a pipe", "48 kHz"],
)
def test_long_recordings(make_app, data):
    with TestClient(make_app(max_audio_seconds=5)) as client:
        assert "longer than 5 s" in error_of(client.post("/predict", content=data, headers=WAV), 413, "audio_too_long")
    with TestClient(make_app(max_audio_seconds=7)) as client:
        assert client.post("/predict", content=data, headers=WAV).status_code == 200


def test_a_long_recording_that_only_ffmpeg_reads(make_app, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    (tmp_path / "a.wav").write_bytes(recording(1, 6))
    subprocess.run([ffmpeg, "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "a.m4a"], check=True)
    data = (tmp_path / "a.m4a").read_bytes()
    with TestClient(make_app(max_audio_seconds=5)) as client:
        error_of(client.post("/predict", content=data, headers=WAV), 413, "audio_too_long")
    with TestClient(make_app(max_audio_seconds=7)) as client:
        assert client.post("/predict", content=data, headers=WAV).status_code == 200


def test_a_batch_is_padded_to_the_longest_recording_at_most(make_app, pipe):
    app, lengths = make_app(max_audio_seconds=4, max_batch_delay_ms=100), []
    predict = app.state.engine._predict

    async def ask():
        async with running(app) as client:
            app.state.engine.batcher.predict = lambda key, clips: (
                lengths.append([*map(len, clips)]),
                predict(key, clips),
            )[1]
            clips = [recording(seed, seconds) for seed, seconds in enumerate((1, 1, 1, 1, 1, 3.5, 1))]
            return await asyncio.gather(*(client.post("/predict", content=clip, headers=WAV) for clip in clips))

    assert {answer.status_code for answer in asyncio.run(ask())} == {200}
    assert sum(map(len, lengths)) == 7 and max(len(batch) * max(batch) for batch in lengths) <= 4 / 0.015  # frames
    assert max(map(len, lengths)) == 4


# ---- limits ---------------------------------------------------------------------------------------------------------
def test_a_large_upload_is_refused_while_it_arrives(make_app):
    """Without a length, with a false length, and with a true one."""
    app = make_app(max_upload_mb=0.1)
    chunk = bytes(10_000)

    async def ask():
        async with app.router.lifespan_context(app):
            for headers in (WAV, WAV | {"content-length": "10"}, FORM, WAV | {"content-length": "2000000000"}):
                first = part("file", b"", "a.wav")[:-2] if headers is FORM else b""
                length = {} if "content-length" in headers else {"transfer-encoding": "chunked"}
                client = Client(app, [first, *[chunk] * 10_000], headers | length)
                status, answer = await client.post()
                assert status == 413 and answer["error"]["code"] == "upload_too_large"
                assert answer["error"]["limit"] == 100_000
                assert dict(client.sent[0]["headers"])[b"connection"] == b"close"
                assert files_of(app) == []

    asyncio.run(ask())


def test_slow_uploads_time_out(make_app):
    app = make_app(upload_timeout=0.2)
    data = recording()

    async def ask():
        async with app.router.lifespan_context(app):
            for messages in ([b"RIFF", 60, b""], [message for byte in data for message in (bytes([byte]), 0.01)]):
                status, answer = await asyncio.wait_for(Client(app, messages).post(), 10)
                assert status == 408 and "slower than" in answer["error"]["message"]
            steady = [message for start in range(0, len(data), 4096) for message in (data[start : start + 4096], 0.05)]
            assert (await Client(app, steady).post())[0] == 200
            assert files_of(app) == [] and app.state.engine.requests == 0

    asyncio.run(ask())


def slowed(app, seconds=30.0):
    """Let the model be busy until the returned event is set."""
    free, started = threading.Event(), threading.Event()
    predict = app.state.engine.batcher.predict

    def slow(key, clips):
        started.set()
        free.wait(seconds)
        return predict(key, clips)

    app.state.engine.batcher.predict = slow
    return free, started


def test_processing_times_out(make_app):
    app = make_app(request_timeout=0.3)

    async def ask():
        async with running(app) as client:
            free, _ = slowed(app)
            error_of(await client.post("/predict", content=recording(), headers=WAV), 504, "timeout")
            assert len(app.state.engine.batcher) == app.state.engine.requests == 0 and files_of(app) == []
            free.set()

    asyncio.run(ask())


def test_too_many_requests_are_told_to_try_again(make_app):
    app = make_app(max_concurrent_requests=2)

    async def ask():
        async with running(app) as client:
            free, started = slowed(app)
            tasks = [asyncio.ensure_future(client.post("/predict", content=recording(), headers=WAV)) for _ in "ab"]
            await asyncio.to_thread(started.wait, 10)
            third = await client.post("/predict", content=recording(), headers=WAV)
            assert "its limit: try again" in error_of(third, 429, "too_many_requests")
            assert third.headers["retry-after"] == "1"
            assert (await client.get("/health")).json()["queue"]["requests"] == 2
            free.set()
            assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [200, 200]
            assert (await client.post("/predict", content=recording(), headers=WAV)).status_code == 200

    asyncio.run(ask())


@pytest.mark.parametrize("name", ["max_upload_mb", "batch_size", "upload_timeout"])
def test_limits_are_checked(name):
    with pytest.raises(ValueError, match=f"^{name} 0"):
        ServiceLimits(**{name: 0})


# ---- clients that go away -------------------------------------------------------------------------------------------
def test_a_client_that_goes_away_leaves_nothing(make_app):
    app = make_app(batch_size=1)
    data = recording()

    async def ask():
        async with app.router.lifespan_context(app):
            assert (await Client(app, [data[:5000], None]).post())[0] == errors.CLIENT_CLOSED
            cut_form = [part("file", data, "a.wav")[:6000], None]
            assert (await Client(app, cut_form, FORM).post())[0] == errors.CLIENT_CLOSED
            assert files_of(app) == []
            free, started = slowed(app)
            first = asyncio.ensure_future(Client(app, [data]).post())
            await asyncio.to_thread(started.wait, 10)
            answer = await Client(app, [data, b"", 0.5, None]).post()
            assert answer[0] == errors.CLIENT_CLOSED and len(app.state.engine.batcher) == 0
            free.set()
            assert (await first)[0] == 200
            assert app.state.engine.batcher.clips == 1 and app.state.engine.requests == 0 and files_of(app) == []

    asyncio.run(ask())


# ---- errors ---------------------------------------------------------------------------------------------------------
def test_every_error_has_one_form(client):
    assert "GET /docs lists" in error_of(client.get("/nothing"), 404, "not_found")
    answer = client.get("/predict")
    assert "use POST" in error_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    error_of(client.delete("/health"), 405, "method_not_allowed")


def test_an_unexpected_error_is_logged_with_an_id(client, caplog, monkeypatch):
    def fail(*_):
        raise RuntimeError("in /srv/secret/file")

    monkeypatch.setattr(client.app.state.engine, "_load", fail)
    answer = client.post("/predict", files={"file": recording()})
    assert "unexpected" in error_of(answer, 500, "internal_error")
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert answer.json()["error"]["id"] in caplog.text and "RuntimeError" in caplog.text


def test_a_failure_of_one_recording_does_not_fail_its_batch(make_app):
    app = make_app(max_batch_delay_ms=100)

    async def ask():
        async with running(app) as client:
            predict = app.state.engine.batcher.predict

            def fails_for_long_ones(key, clips):
                if max(map(len, clips)) > 100:
                    raise RuntimeError("too much")
                return predict(key, clips)

            app.state.engine.batcher.predict = fails_for_long_ones
            clips = [recording(seed, 2 if seed == 1 else 1) for seed in range(4)]
            return await asyncio.gather(*(client.post("/predict", content=clip, headers=WAV) for clip in clips))

    assert [answer.status_code for answer in asyncio.run(ask())] == [200, 500, 200, 200]


# ---- the interface --------------------------------------------------------------------------------------------------
def test_the_schema_and_the_page(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/timeline", "/health"}
    predict = schema["paths"]["/predict"]["post"]
    assert predict["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/PredictResponse")
    for status in ("400", "408", "413", "415", "422", "429", "500", "504"):
        assert predict["responses"][status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"file", "labels", "template", "gender", "reject_below", "top_k"} == set(form["properties"])
    answer = client.get("/docs")
    assert answer.status_code == 200 and "POST /predict" in answer.text and "hysteresis" in answer.text
    assert all(f"<pre>curl {each}" in answer.text for each in ("-F file=@clip.wav", "127.0.0.1:8000/health"))
    assert "number from 0 to 60000" in answer.text and "auto, silero, level" in answer.text
    assert all(f"<td>{name}</td>" in answer.text for name in ("limit", "file", "id"))
    assert not re.search(r"<script|https?://|<link|<img|url\(", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_ranges_and_defaults_of_timelines_are_those_of_its_options(client):
    ranges = {}
    for each in client.get("/openapi.json").json()["paths"]["/timeline"]["post"]["parameters"]:
        schema = each["schema"]
        if "minimum" in schema:
            ranges[each["name"]] = schema["minimum"], schema["maximum"]
            assert schema.get("default") == getattr(TimelineOptions(), each["name"])
        elif "exclusiveMinimum" in schema:
            ranges[each["name"]] = schema["exclusiveMinimum"], schema["exclusiveMaximum"]
            for value in ranges[each["name"]]:
                with pytest.raises(ValueError, match=f"^{each['name']}"):
                    TimelineOptions(**{each["name"]: value})
    assert len(ranges) == 9
    wide = {"threshold": 0.9999, "min_silence_duration_ms": 60_000}
    for name, (low, high) in ranges.items():
        for value in (low - 0.001, high + 0.001):
            with pytest.raises(ValueError, match=f"^{name}"):
                TimelineOptions(**{name: value})
        for value in (low + 0.0001, high - 0.0002):
            TimelineOptions(
                **wide | ({"speech_pad_ms": 0} if name == "min_silence_duration_ms" else {}) | {name: value}
            )


def test_other_origins_get_no_permission(client):
    answer = client.get("/health", headers={"origin": "https://example.org"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


# ---- timelines ------------------------------------------------------------------------------------------------------
LEVEL = {"vad": "level", "window": "1", "step": "0.5"}


def test_timelines(client, pipe):
    data = recording(0, 4, pauses=True)
    given = {"labels": "happy,sad", "threshold": "0.4", "min_speech_duration_ms": "100.5", "reject_below": "0.99"}
    answer = client.post("/timeline", files={"file": ("a.wav", data)}, data=given | LEVEL)
    assert answer.status_code == 200, answer.text
    options = {"labels": ["happy", "sad"], "threshold": 0.4, "min_speech_duration_ms": 100.5, "reject_below": 0.99}
    wanted = list(timeline(pipe, data, TimelineOptions(**options, vad="level", window=1.0, step=0.5)))
    answer = TimelineResponse(**answer.json())
    assert answer.file == "a.wav" and wanted
    for found, segment in zip(answer.segments, wanted, strict=True):
        assert (found.start, found.end, found.label, found.best_label) == (
            segment.start,
            segment.end,
            segment.label,
            segment.best_label,
        )
        assert found.scores == pytest.approx(segment.scores, abs=1e-5)
    assert "scores only rank the labels" in answer.warnings[0]


def test_timelines_that_cannot_be_made(client):
    post = functools.partial(client.post, "/timeline", headers=WAV)
    message = error_of(post(content=recording(), params={"threshold": "2"}), 422, "invalid_options")
    assert message.startswith("threshold=2.0 must")
    assert "'gender' is not an option" in post(content=b"x", params={"gender": "true"}).text
    for name, value in {"step": "x", "vad": "webrtc", "reject_below": "1.5"}.items():
        error_of(post(content=recording(), params={name: value}), 422, "invalid_options")
    error_of(post(content=b"no audio"), 422, "unusable_audio")
    cut = io.BytesIO()
    soundfile.write(cut, np.random.default_rng(0).standard_normal(3 * RATE) / 10, RATE, format="FLAC")
    damaged = client.post("/timeline", files={"file": ("a.flac", cut.getvalue()[: len(cut.getvalue()) // 2])})
    assert error_of(damaged, 422, "unusable_audio").startswith("a.flac: truncated")
    assert files_of(client.app) == []


def test_no_speech_has_no_segments(client):
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(RATE), RATE, format="WAV")
    answer = client.post("/timeline", content=silence.getvalue(), headers=WAV)
    assert answer.status_code == 200 and answer.json()["segments"] == []


@pytest.fixture
def slow_steps(monkeypatch):
    """Each block of a recording takes 0.2 s."""
    real = TimelineEngine.feed

    def feed(self, wave, at_once=False):
        time.sleep(0.2)
        return real(self, wave, at_once)

    monkeypatch.setattr(TimelineEngine, "feed", feed)


def test_long_and_slow_timelines(make_app, slow_steps, monkeypatch):
    with TestClient(make_app(max_timeline_seconds=2)) as client:
        error_of(client.post("/timeline", content=recording(0, 3), headers=WAV), 413, "audio_too_long")
        monkeypatch.setattr(engine, "check_header", lambda *_: None)
        error_of(client.post("/timeline", content=recording(0, 9), headers=WAV), 413, "audio_too_long")
    with TestClient(make_app(timeline_timeout=0.5)) as client:
        error_of(client.post("/timeline", content=recording(0, 60), headers=WAV, params=LEVEL), 504, "timeout")
        assert files_of(client.app) == []


def test_predictions_run_between_the_steps_of_a_timeline(make_app, slow_steps):
    """Also if the recording is one long segment."""
    app = make_app()

    async def ask():
        async with running(app) as client:
            long = asyncio.ensure_future(
                client.post(
                    "/timeline", content=recording(0, 40, pauses=True), headers=WAV, params=LEVEL | {"hysteresis": "1"}
                )
            )
            await asyncio.sleep(0.3)
            answer = await client.post("/predict", content=recording(), headers=WAV)
            assert answer.status_code == 200 and not long.done()
            assert len((await long).json()["segments"]) == 1

    asyncio.run(ask())


def test_rejected_predictions(client):
    answer = client.post("/predict", content=recording(), headers=WAV, params={"reject_below": "0.9999"}).json()
    assert answer["label"] == "none of these" and answer["best_label"] in answer["scores"]
    error_of(
        client.post("/predict", content=recording(), headers=WAV, params={"reject_below": "0"}), 422, "invalid_options"
    )
