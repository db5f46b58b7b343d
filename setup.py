"""The one thing that pyproject.toml cannot say: the decoder in C, built where there is a compiler.

It is loaded with ctypes and needs no Python header; without it a slower decoder is used.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "modelbeam.formats.jsonl._columns",
            [f"src/modelbeam/formats/jsonl/{name}.c" for name in ("columns", "encode")],
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
