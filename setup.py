"""Builds the extension, flashpol._fastpath, and compiles one Python file. Everything else is in pyproject.toml.

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

# flashpol.gateway.conversation is Python that needs less memory compiled; its coverage is measured as Python.
SOURCES = {
    "flashpol._fastpath": "flashpol/_fastpath.pyx",
    "flashpol.gateway.conversation": "flashpol/gateway/conversation.py",
}
if build == "coverage":
    del SOURCES["flashpol.gateway.conversation"]

extensions = [
    Extension(
        name,
        [source],
        extra_compile_args=["-Wall", *FLAGS[build]],
        extra_link_args=["-fsanitize=address,undefined"] if build == "sanitize" else [],
    )
    for name, source in SOURCES.items()
]

setup(
    ext_modules=cythonize(  # type: ignore[no-untyped-call]
        extensions,
        # The C file of one kind of build must never be compiled as another.
        build_dir=f"build/cython-{build or 'release'}",
        compiler_directives={"language_level": 3, "annotation_typing": False, "linetrace": build == "coverage"},
    )
)
