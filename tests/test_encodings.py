"""Every text file is opened in a named encoding: the locale of a machine decides nothing."""

# ruff: noqa: D103

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for folder in ("videogym", "agents", "examples") for path in (ROOT / folder).rglob("*.py")
)
# Where the mode stands. `open` as a method is a path's where it gets a mode or nothing.
MODE_AT = {"open": 1, "fdopen": 1, "TemporaryFile": 0, "NamedTemporaryFile": 0, "SpooledTemporaryFile": 1}
ALWAYS_TEXT = {"read_text": 0, "write_text": 1, "TextIOWrapper": 1}  # and where the encoding stands
PROCESSES = {"run", "Popen", "check_output", "getoutput", "getstatusoutput"}


def _mode(call: ast.Call, name: str) -> str | None:
    """The mode of an opening call, None where the call is none or its mode no constant."""
    is_method = (
        name == "open" and isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) != "io"
    )
    at = 0 if is_method else MODE_AT[name]
    given = next((word.value for word in call.keywords if word.arg == "mode"), None)
    if given is None and len(call.args) > at:
        given = call.args[at]
    if given is None:  # `store.open(source)` has an argument that is no mode
        return None if is_method and call.args else "w+b" if name.endswith("File") else "r"
    mode = given.value if isinstance(given, ast.Constant) else None
    return mode if isinstance(mode, str) and mode and set(mode) <= set("rwaxbt+") else None


def locale_dependent(source: str) -> Iterator[str]:
    """Calls that read or write text in whatever encoding the locale has, as ``LINE: CALL``."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute | ast.Name):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
        words = {word.arg for word in call.keywords}
        if name in ALWAYS_TEXT:
            is_text = len(call.args) <= ALWAYS_TEXT[name]
        elif name in MODE_AT:
            mode = _mode(call, name)
            is_text = mode is not None and "b" not in mode
        else:
            is_text = name in PROCESSES and bool(words & {"text", "universal_newlines"})
        if is_text and "encoding" not in words:
            yield f"{call.lineno}: {ast.unparse(call)}"


def test_no_text_is_read_or_written_in_the_encoding_of_a_locale() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call}"
        for path in SOURCES
        for call in locale_dependent(path.read_text(encoding="utf-8"))
    ]
    assert not found, "name an encoding, or open in bytes:\n" + "\n".join(found)


def test_the_search_tells_text_from_bytes_and_files_from_what_else_is_opened() -> None:
    text = """
        open(path)
        open(path, "w")
        io.open(path, mode="a")
        path.open()
        path.open("x", newline="")
        os.fdopen(handle, "r+")
        path.read_text(errors="replace")
        path.write_text(words)
        NamedTemporaryFile("w")
        subprocess.run(command, text=True)
    """
    other = """
        open(path, "rb")
        open(path, "w", encoding="utf-8")
        path.open("ab")
        path.read_text("utf-8")
        path.write_text(words, encoding="utf-8")
        os.fdopen(handle, "wb")
        NamedTemporaryFile()
        store.open(source)
        self.open(f"task {name}")
        subprocess.run(command, capture_output=True)
    """
    assert len(list(locale_dependent(textwrap.dedent(text)))) == 10
    assert list(locale_dependent(textwrap.dedent(other))) == []
