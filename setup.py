"""The one thing that pyproject.toml cannot say: what is in C, built where there is a compiler.

The decoder is loaded with ctypes and needs no Python header; without it a slower one is used. What
keeps Beam's job servers on the loopback interface is preloaded into them by Linux's loader.
"""

import sys

from setuptools import Extension, setup

FLAGS = ["-O3", "-Wall", "-Wextra"]

decoder = Extension(
    "modelbeam.formats.jsonl._columns",
    [f"src/modelbeam/formats/jsonl/{name}.c" for name in ("columns", "encode")],
    extra_compile_args=FLAGS,
    optional=True,
)
loopback = Extension(
    "modelbeam.engines._loopback",
    ["src/modelbeam/engines/loopback.c"],
    extra_compile_args=FLAGS,
    libraries=["dl"],
    optional=True,
)

setup(ext_modules=[decoder, *([loopback] if sys.platform == "linux" else [])])
