"""The service's settings: a file below the environment below the command line, everything wrong named at once, secrets never."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.settings import ServiceSettings, local_url
from training.errors import BadSettings, BadValue
from training.program import parse, run_program

Patch = pytest.MonkeyPatch


@pytest.fixture
def file(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Where FC7_SETTINGS says that the settings are; nothing is there yet."""
    path = tmp_path / "fc7.toml"
    monkeypatch.setenv("FC7_SETTINGS", str(path))
    return path


def test_a_file_wins_over_defaults_the_environment_over_it_and_the_command_line_over_all(file: Path, monkeypatch: Patch) -> None:
    file.write_text('port = 1\nmax_images = 1\nmax_neighbors = 1\nmodel = "elsewhere"\n')
    monkeypatch.setenv("FC7_MAX_IMAGES", "2")
    monkeypatch.setenv("FC7_MAX_NEIGHBORS", "2")
    settings = parse(ServiceSettings, ["--max-neighbors", "3"])
    assert (settings.port, settings.max_images, settings.max_neighbors, settings.model) == (1, 2, 3, Path("elsewhere"))
    assert settings.host == "127.0.0.1"


def test_a_file_holds_every_setting(file: Path) -> None:
    """What a service runs with, written down, is read back."""
    given = ServiceSettings.model_construct().model_dump(mode="json", exclude_none=True)
    given = {**given, "api_key": "s3kret", "port": 81}
    file.write_text(
        "".join(f"{name} = {value!r}\n".replace("True", "true").replace("False", "false") for name, value in given.items())
    )
    settings = parse(ServiceSettings, [])
    assert settings.api_key
    assert {**settings.model_dump(mode="json", exclude_none=True), "api_key": settings.api_key.get_secret_value()} == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_image = 3", "max_image in {file} is not a setting; did you mean max_images?"),
        ("[http]\nport = 1", "http in {file} is not a setting; --help lists all that there are"),
        ("port = 65536", "port must be less than or equal to 65535 in {file}, got 65536"),
        ('search = "fast"', "search must be 'auto', 'exact', 'code' or 'two-stage' in {file}, got 'fast'"),
        ("port = x", "FC7_SETTINGS must be a file in TOML (Invalid value (at line 1, column 8)), got '{file}'"),
        ("port: 1", "FC7_SETTINGS must be a file in TOML (Expected '=' after a key"),
        (None, "FC7_SETTINGS must be a file that can be read (No such file or directory), got '{file}'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(file: Path, text: str | None, message: str) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises((BadValue, BadSettings)) as refused:
        parse(ServiceSettings, [])
    assert str(refused.value).startswith(message.format(file=file))


def test_a_folder_and_a_file_in_another_encoding_are_refused_by_name(file: Path, monkeypatch: Patch) -> None:
    file.write_bytes(b'host = "\xff"')
    with pytest.raises(BadValue, match=r"FC7_SETTINGS must be a file in TOML \('utf-8' codec can't decode"):
        parse(ServiceSettings, [])
    monkeypatch.setenv("FC7_SETTINGS", str(file.parent))
    with pytest.raises(BadValue, match=r"FC7_SETTINGS must be a file that can be read \(Is a directory\)"):
        parse(ServiceSettings, [])


def test_an_empty_name_is_no_file(monkeypatch: Patch) -> None:
    monkeypatch.setenv("FC7_SETTINGS", "")
    assert parse(ServiceSettings, []).port == 8000


def test_all_that_is_wrong_is_said_at_once_with_where_it_was_given(
    file: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("max_neighbours = 5\nmax_images = 0\nport = 70000\n")
    monkeypatch.setenv("FC7_MAX_NEIGHBORS", "0")
    monkeypatch.setenv("FC7_PORT", "x")
    with pytest.raises(SystemExit) as stopped:
        run_program(ServiceSettings, lambda _settings: None, ["--max-image-pixels", "0"])
    assert stopped.value.code == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert {first.removeprefix("python -m service: "), *others} == {
        f"max_neighbours in {file} is not a setting; did you mean max_neighbors?",
        f"max_images must be greater than or equal to 1 in {file}, got 0",
        "max_neighbors must be greater than or equal to 1 in FC7_MAX_NEIGHBORS, got '0'",
        "port must be a valid integer, unable to parse string as an integer in FC7_PORT, got 'x'",
        "max_image_pixels must be greater than or equal to 1, got '0'",
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('api_key = ["s3kret"]', "api_key"),
        ("api_key = 53237", "api_key"),
        ('api_key = { value = "s3kret" }\nport = 70000', "api_key"),
        ('api_key = "s3kret"\nport = 70000', "port"),
        ('api_kee = "s3kret"', "did you mean api_key"),
        ('api_key = "s3kret', "FC7_SETTINGS"),
    ],
)
def test_a_key_is_never_shown_whatever_is_wrong(file: Path, text: str, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(text)
    with pytest.raises(SystemExit):
        run_program(ServiceSettings, lambda _settings: None, [])
    shown = capsys.readouterr().err
    assert wrong in shown
    assert "s3kret" not in shown
    assert "53237" not in shown
    with pytest.raises((BadValue, BadSettings)) as refused:
        parse(ServiceSettings, [])
    assert refused.value.__context__ is None or "api_key" not in str(refused.value.__context__)


def test_an_empty_key_is_refused(monkeypatch: Patch) -> None:
    monkeypatch.setenv("FC7_API_KEY", "")
    with pytest.raises(BadValue, match=r"api_key must be a value with at least 1 item .* in FC7_API_KEY, got SecretStr\(''\)"):
        parse(ServiceSettings, [])


def test_help_names_environment_and_file_and_needs_neither(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not file.exists()
    with pytest.raises(SystemExit) as stopped:
        run_program(ServiceSettings, lambda _settings: None, ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "FC7_*" in text
    assert "FC7_SETTINGS" in text


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:80", "udp://10.0.0.1:53", "tcp://[fd00::1]:8000"])
def test_the_port_that_kubernetes_sets_for_a_service_named_fc7_is_explained(monkeypatch: Patch, value: str) -> None:
    monkeypatch.setenv("FC7_PORT", value)
    with pytest.raises(BadValue, match=r"port must be .*Kubernetes.*enableServiceLinks: false.* in FC7_PORT, got '\w+://"):
        parse(ServiceSettings, [])
    assert parse(ServiceSettings, ["--port", "81"]).port == 81


def test_other_variables_that_kubernetes_and_docker_set_for_a_service_named_fc7_do_nothing(monkeypatch: Patch) -> None:
    for name, value in {
        "FC7_SERVICE_HOST": "10.0.0.1",
        "FC7_SERVICE_PORT": "80",
        "FC7_SERVICE_PORT_HTTP": "80",
        "FC7_PORT_80_TCP": "tcp://10.0.0.1:80",
        "FC7_PORT_80_TCP_PROTO": "tcp",
        "FC7_PORT_80_TCP_PORT": "80",
        "FC7_PORT_80_TCP_ADDR": "10.0.0.1",
        "FC7_NAME": "/web/fc7",
        "FC7_ENV_PATH": "/usr/bin",
    }.items():
        monkeypatch.setenv(name, value)
    assert parse(ServiceSettings, []) == ServiceSettings()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("192.0.2.1", "http://192.0.2.1:8000"),
        ("fc7.example.org", "http://fc7.example.org:8000"),
        ("::1", "http://[::1]:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104
        ("::", "http://[::1]:8000"),
        ("0:0::0", "http://[::1]:8000"),
    ],
)
def test_the_service_says_an_address_that_a_browser_on_this_machine_can_open(host: str, url: str) -> None:
    assert local_url(host, 8000) == url


# Keys


def key_of(settings: ServiceSettings) -> str | None:
    return settings.api_key.get_secret_value() if settings.api_key else None


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("key", ["s3kret", "voilà", "a b", "-", "ключ"])
def test_a_key_is_what_stands_before_the_newline(file: Path, tmp_path: Path, monkeypatch: Patch, key: str, end: str) -> None:
    file.write_text("api_key = " + json.dumps(key + end, ensure_ascii=False))
    assert key_of(parse(ServiceSettings, [])) == key
    monkeypatch.delenv("FC7_SETTINGS")
    assert key_of(ServiceSettings(api_key=key + end)) == key
    (tmp_path / "key").write_bytes((key + end).encode())
    assert key_of(parse(ServiceSettings, ["--api-key-file", str(tmp_path / "key")])) == key
    monkeypatch.setenv("FC7_API_KEY_FILE", str(tmp_path / "key"))
    assert key_of(parse(ServiceSettings, ["--api-key-for-reads"])) == key
    monkeypatch.delenv("FC7_API_KEY_FILE")
    monkeypatch.setenv("FC7_API_KEY", key + end)
    assert key_of(parse(ServiceSettings, [])) == key


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("\n", "at least 1 character"),
        (" s3kret", "white space at its ends"),
        ("s3kret ", "white space at its ends"),
        ("s3kret\t\n", "white space at its ends"),
        ("s3kret\u00a0", "white space at its ends"),
        ("s3k\nret", "control characters"),
        ("s3k\tret", "control characters"),
        ("s3k\x00ret", "control characters"),
        ("s3k\x7fret", "control characters"),
        ("s3k\x85ret", "control characters"),
        ("s3k\udcffret", "control characters"),
    ],
)
def test_a_key_that_headers_cannot_carry_is_refused_at_start_and_not_shown(
    tmp_path: Path, monkeypatch: Patch, key: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ServiceSettings(api_key=key)
    if "\x00" not in key:
        monkeypatch.setenv("FC7_API_KEY", key)
        with pytest.raises(BadValue, match=f"api_key must be .*{words}") as refused:
            parse(ServiceSettings, [])
        assert key.strip() not in str(refused.value) or key == "\n"
        monkeypatch.delenv("FC7_API_KEY")
    (tmp_path / "key").write_bytes(key.encode(errors="surrogateescape"))
    monkeypatch.setenv("FC7_API_KEY_FILE", str(tmp_path / "key"))
    expected = "a file in UTF-8" if "\udcff" in key else words
    with pytest.raises(BadValue, match=f"api_key_file must be .*{expected}.* in FC7_API_KEY_FILE, got .*key"):
        parse(ServiceSettings, [])


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3kret\r\n", "utf-8-sig")
    assert key_of(parse(ServiceSettings, ["--api-key-file", str(tmp_path / "key")])) == "s3kret"
    (tmp_path / "key").write_text("\ufeff", "utf-8")
    with pytest.raises(BadValue, match="at least 1 character"):
        parse(ServiceSettings, ["--api-key-file", str(tmp_path / "key")])


def test_a_key_comes_from_one_source(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "key").write_text("s3kret")
    monkeypatch.setenv("FC7_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("FC7_API_KEY", "another")
    with pytest.raises(
        BadValue, match=r"api_key must be left out where api_key_file is given in FC7_API_KEY, got .*\*\*"
    ) as refused:
        parse(ServiceSettings, [])
    assert "another" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b""), "at least 1 character"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "UTF-8"),
        (lambda path: path.write_bytes(b"x" * 100_000), "at most 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_key_is_refused_by_name(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    make(tmp_path / "key")
    with pytest.raises(BadValue, match=f"api_key_file must be .*{words}.*, got .*key"):
        parse(ServiceSettings, ["--api-key-file", str(tmp_path / "key"), "--api-key-for-reads"])


# Where it is served


@pytest.mark.parametrize(
    ("given", "taken"), [("", ""), ("/", ""), ("/fc7", "/fc7"), ("/fc7/", "/fc7"), ("/a/b.c~_-", "/a/b.c~_-")]
)
def test_a_root_path_is_a_path(given: str, taken: str) -> None:
    assert ServiceSettings(root_path=given).root_path == taken


@pytest.mark.parametrize(
    "given", ["fc7", "//fc7", "/a//b", "/a/../b", "/.", "/a b", "/a?b", "http://x/fc7", "/a%20b", "/ü", "/a\n"]
)
def test_what_is_no_path_is_refused(given: str) -> None:
    with pytest.raises(BadValue, match="root_path must be a path such as /fc7"):
        parse(ServiceSettings, ["--root-path", given])


@pytest.mark.parametrize(
    "host", ["http://a.example", "a.example:80", "*", "*.example", "", "a b", "a/b", ".a", "[::1]:80", "[::1"]
)
def test_what_names_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="without a port"):
        ServiceSettings(allowed_hosts=[host])
