"""Compile with clang into ``build/fuzz``: the native target, and the extensions that Python targets run."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from flashpol._fastpath import REASONS
from flashpol.worker.protocols import SIGNATURES
from fuzz import FuzzError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "fuzz"
CLANG = "clang"
FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
# An extension in a process whose libFuzzer and AddressSanitizer are those that atheris comes with.
EXTENSION_FLAGS = ("-shared", "-fPIC", "-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=fuzzer-no-link,address")
LIBRARIES = {"_tls": ("-lssl", "-lcrypto"), "_websocket": ("-DFLASHPOL_ZLIB=1", "-lz")}
COMPILE_SECONDS = 300
SEEN = 8  # SEEN_BYTES of match.pxd


def recogniser() -> Path:
    """The compiled target: Cython's C of the recognisers, and recognise.c. Raises FuzzError."""
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "signatures.h").write_text(_signatures())
    generated, program = BUILD / "recognise_core.c", BUILD / "recognise"
    _run(_cython(HERE / "recognise.pyx", generated))
    library = sysconfig.get_config_var("LIBDIR")
    command = [CLANG, *FLAGS, f"-I{BUILD}", f"-I{sysconfig.get_path('include')}"]
    command += [str(generated), str(HERE / "recognise.c"), "-o", str(program)]
    # Nothing of Python runs, but Cython's module refers to it.
    command += [f"-L{library}", f"-Wl,-rpath,{library}", f"-lpython{sysconfig.get_config_var('LDVERSION')}"]
    _run(command)
    return program


def extension(name: str) -> Path:
    """flashpol._tls or another extension, in which libFuzzer sees the branches that an input takes.

    Raises FuzzError.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    generated, built = BUILD / f"{name}.c", BUILD / f"{name}.so"
    _run(_cython(ROOT / "flashpol" / f"{name}.pyx", generated))
    include = f"-I{sysconfig.get_path('include')}"
    _run([CLANG, *EXTENSION_FLAGS, include, str(generated), "-o", str(built), *LIBRARIES.get(name, ())])
    return built


def _cython(source: Path, generated: Path) -> list[str]:
    return [sys.executable, "-m", "cython", "-3", "-I", str(ROOT), "-o", str(generated), str(source)]


def _signatures() -> str:
    """The table of worker/protocols.py in C: as the fast path keeps it, and as rows for the reference."""
    rows = []
    for prefix, reason in SIGNATURES:
        octets = ", ".join(f"{byte:#04x}" for byte in prefix)
        rows.append(f"    {{.prefix = {{{octets}}}, .size = {len(prefix)}, .name = {REASONS.index(reason)}}},")
    table = "\n".join(rows)
    return (
        "/* Written by fuzz/native/build.py. */\n"
        f"enum {{ SEEN = {SEEN} }};\n"
        "struct row { char prefix[SEEN]; uint8_t size, name; };\n"
        f"static const struct row TABLE[] = {{\n{table}\n}};\n"
        f"static const struct {{ struct row rows[32]; uint8_t count; }} KNOWN = {{\n.rows = {{\n{table}\n}},\n"
        f".count = {len(SIGNATURES)}}};\n"
    )


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except FileNotFoundError:
        raise FuzzError(f"{command[0]} is not installed: apt-get install clang") from None
    if done.returncode != 0:
        raise FuzzError(f"{' '.join(command[:3])} …:\n{done.stderr}")
