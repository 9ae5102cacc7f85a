"""Builds the extensions, flashpol._fastpath and flashpol._pump, and compiles one Python file.

All else is in pyproject.toml.

FLASHPOL_BUILD chooses how: empty for the optimised build that is shipped; `debug` for symbols and no optimisation;
`coverage` for line tracing of the .pyx; `sanitize` for AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os

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

SOURCES = {"flashpol._fastpath": "flashpol/_fastpath.pyx", "flashpol._pump": "flashpol/_pump.pyx"}
# Python that needs less memory compiled. Its coverage is measured as Python; AddressSanitizer would guard its stack,
# which greenlet copies, guards and all.
if build not in ("coverage", "sanitize"):
    SOURCES["flashpol.worker.slow_reply"] = "flashpol/worker/slow_reply.py"

# greenlet copies the stack of whoever sleeps in it, and would be told that it reads between the variables there.
SLEEPING = ("flashpol._pump", "flashpol.worker.slow_reply")
SLEEPS = {name: ["--param", "asan-stack=0"] for name in SLEEPING if build == "sanitize"}

extensions = [
    Extension(
        name,
        [source],
        extra_compile_args=["-Wall", *FLAGS[build], *SLEEPS.get(name, [])],
        extra_link_args=["-fsanitize=address,undefined"] if build == "sanitize" else [],
    )
    for name, source in SOURCES.items()
]

setup(
    ext_modules=cythonize(  # type: ignore[no-untyped-call]
        extensions,
        # The C file of one kind of build must never be compiled as another. Coverage has a copy of the tree of its own,
        # where Cython's plugin for it looks for the C beside the .pyx.
        build_dir=None if build == "coverage" else f"build/cython-{build or 'release'}",
        compiler_directives={"language_level": 3, "annotation_typing": False, "linetrace": build == "coverage"},
    )
)
