"""Builds the extensions, flashpol._fastpath, flashpol._pump and flashpol._tls, and compiles some Python files.

flashpol._tls is left out where the headers of OpenSSL are missing. Then a configuration with certificates is refused.

Everything else is in pyproject.toml.

FLASHPOL_BUILD chooses how: empty for the optimised build that is shipped; `debug` for symbols and no optimisation;
`coverage` for line tracing of the .pyx and .pxi; `sanitize` for AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import shlex
import subprocess
import sysconfig

from Cython.Build import cythonize
from setuptools import Extension, setup

FLAGS = {
    "": ["-O3", "-g0"],
    "debug": ["-O0", "-g"],
    "coverage": ["-O0", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1", "-DCYTHON_USE_SYS_MONITORING=0"],
    "sanitize": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"],
}
build = os.environ.get("FLASHPOL_BUILD", "")
if build not in FLAGS:
    raise SystemExit(f"FLASHPOL_BUILD={build}: unknown; one of {', '.join(name or '(empty)' for name in FLAGS)}")

SOURCES = {f"flashpol.{name}": f"flashpol/{name}.pyx" for name in ("_fastpath", "_pump", "_tunnel", "_websocket")}
LIBRARIES = {"flashpol._tls": ["ssl", "crypto"]}


def has_openssl() -> bool:
    """Whether the headers of OpenSSL 3.0 or later are installed."""
    program = b"#include <openssl/ssl.h>\n#if OPENSSL_VERSION_NUMBER < 0x30000000L\n#error too old\n#endif\n"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    done = subprocess.run([*compiler, "-E", "-"], input=program, capture_output=True, check=False)
    return done.returncode == 0


def has_zlib() -> bool:
    """Whether the headers of zlib are installed; those of Python need them."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    done = subprocess.run([*compiler, "-E", "-"], input=b"#include <zlib.h>\n", capture_output=True, check=False)
    return done.returncode == 0


MACROS = {}
if has_zlib():
    LIBRARIES["flashpol._websocket"] = ["z"]
    MACROS["flashpol._websocket"] = [("FLASHPOL_ZLIB", "1")]
if has_openssl():
    SOURCES["flashpol._tls"] = "flashpol/_tls.pyx"
else:
    print("no OpenSSL 3.0 or later (libssl-dev): building without TLS")

# Python files that need less memory when they are compiled: what runs in the greenlet of a session or a slow reply.
# A greenlet in which a single function of Python has run keeps a page for the interpreter's frames. Coverage measures
# them as Python. AddressSanitizer would put guards on their stack, and greenlet copies that stack with the guards.
COMPILED = (
    "worker.slow_reply",
    *(
        f"relay.{name}"
        for name in (
            "backends",
            "client_address",
            "connecting",
            "group",
            "local_ports",
            "proxy_header",
            "rate_limit",
            "relay",
        )
    ),
)
if build not in ("coverage", "sanitize"):
    for module in COMPILED:
        SOURCES[f"flashpol.{module}"] = f"flashpol/{module.replace('.', '/')}.py"

# greenlet copies the stack of a greenlet that sleeps, and AddressSanitizer would report reads between its variables.
SLEEPING = ("flashpol._pump", "flashpol.worker.slow_reply")
SLEEPS = {name: ["--param", "asan-stack=0"] for name in SLEEPING if build == "sanitize"}

extensions = [
    Extension(
        name,
        [source],
        libraries=LIBRARIES.get(name, []),
        define_macros=MACROS.get(name, []),
        extra_compile_args=["-Wall", *FLAGS[build], *SLEEPS.get(name, [])],
        extra_link_args=["-fsanitize=address,undefined"] if build == "sanitize" else [],
    )
    for name, source in SOURCES.items()
]

setup(
    ext_modules=cythonize(  # type: ignore[no-untyped-call]
        extensions,
        # The C file of one kind of build must never be compiled as another. The coverage build has its own copy of the
        # tree, because Cython's plugin for coverage looks for the C beside the .pyx.
        build_dir=None if build == "coverage" else f"build/cython-{build or 'release'}",
        compiler_directives={"language_level": 3, "annotation_typing": False, "linetrace": build == "coverage"},
    )
)
