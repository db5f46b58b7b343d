"""What ``--model`` names, parsed once: a class, a file, a directory, a URI; or several of them."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from modelbeam import storage
from modelbeam.errors import ModelLoadError, NotAModelError, StorageError

Form = Literal["class", "object", "file", "directory", "uri", "several", "decorated"]

_NAME = r"[^\W\d]\w*"
_CLASS = re.compile(rf"({_NAME}(?:\.{_NAME})*):({_NAME})|({_NAME}(?:\.{_NAME})*)\.({_NAME})")
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_FILE = re.compile(
    r".+\.(bin|cbm|ckpt|gguf|h5|joblib|json|keras|mlmodel|onnx|pb|pickle|pkl|pmml|pt|pth|py"
    r"|safetensors|skops|tflite|txt|ubj|zip)",
    re.IGNORECASE,
)
"""``model.joblib`` is a file, and not the class ``joblib`` of a module. Another suffix needs a
separator, or the file to be there."""


class Handed(NamedTuple):
    """An object that was handed over; see :mod:`modelbeam.models.handed`.

    Attributes:
        content: the object, pickled by value.
        python: the version that has pickled it, such as ``3.11``.
        digest: of its code and values.
    """

    content: bytes
    python: str
    digest: str


@dataclass(frozen=True, slots=True)
class Target:
    """What ``--model`` names. ``str(target)`` is the text as it was given.

    Attributes:
        text: as it was given.
        form: what kind of thing it is.
        module: of a class, with its packages.
        attribute: of a class, its name in the module.
        path: of a file or directory, absolute; of a URI, the URI.
        scheme: of a URI, lower case.
        of: of several models in one job, the target of each; of a decorated one the class and its
            decorators.
        handed: of an object, the object itself.
    """

    text: str
    form: Form
    module: str = ""
    attribute: str = ""
    path: str = ""
    scheme: str = ""
    of: tuple[Target, ...] = ()
    handed: Handed | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, value: str | Target) -> Target:
        """Read what was given; relative paths are those of the working directory of now.

        A path is told by its separator, by a leading ``~``, by the suffix of a file, or by being
        there; a URI by its scheme and a slash (``s3://…``, ``models:/…``).

        Raises:
            NotAModelError: it is none of these.
        """
        if isinstance(value, Target):
            return value
        text, path = value, os.path.expanduser(storage.normalize(value))
        if match := _URI.match(path):
            return cls(text, "uri", path=path, scheme=match[1].lower())
        match = _CLASS.fullmatch(text)
        if _FILE.fullmatch(path) or os.path.exists(path) or os.path.sep in path:
            return cls._of_path(text, path)
        if match is None:
            raise NotAModelError(
                f"--model {text}: a model is given as 'module:Class', for example "
                f"'iris_model.iris_predict:IrisModel', or as the path of its file or directory."
            )
        return cls(text, "class", module=match[1] or match[3], attribute=match[2] or match[4])

    @classmethod
    def _of_path(cls, text: str, path: str) -> Target:
        full = os.path.abspath(path)
        is_directory = os.path.isdir(full) or (path.endswith("/") and not os.path.exists(full))
        return cls(text, "directory" if is_directory else "file", path=full)

    def __str__(self) -> str:
        return self.text

    @property
    def leaves(self) -> tuple[Target, ...]:
        """All that has to be there: this one, or those that it is made of."""
        return tuple(leaf for one in self.of for leaf in one.leaves) if self.of else (self,)

    @property
    def suffix(self) -> str:
        """The last suffix of a path or URI in lower case, ``.onnx``, or nothing."""
        return os.path.splitext(self.path.rstrip("/"))[1].lower()

    def contains(self, name: str) -> bool:
        """Whether it is a directory, here or behind a URL, that has a file of that name."""
        if self.form == "uri":
            plain = self.path.rstrip("/")
            return storage.is_url(plain) and not self.suffix and storage.exists(f"{plain}/{name}")
        place = self._sent() or self.path
        return self.form == "directory" and os.path.exists(os.path.join(place, name))

    @property
    def package(self) -> str:
        """The directory among the modules in which a file or directory travels to workers."""
        return f"modelbeam_model_{hashlib.sha256(self.path.encode()).hexdigest()[:16]}"

    def local(self) -> str:
        """The path on this machine of a file or directory; behind a URL it is fetched first.

        On a worker it is what was sent along with the job, if it was.

        Raises:
            NotAModelError: it is not there.
            ModelLoadError: the store refuses.
        """
        sent = self._sent()
        if sent is not None:
            return sent
        try:
            path = storage.local_copy(self.path)
            os.stat(path)
        except StorageError as error:
            raise ModelLoadError(f"--model {self.text}: {error}") from error
        except OSError as error:
            raise NotAModelError(
                f"--model {self.text} cannot be read: {error.strerror or error}."
            ) from None
        return path

    def _sent(self) -> str | None:
        """Where a file or directory is that was sent along with a job; ``None`` if it was not."""
        name = os.path.basename(self.path.rstrip("/"))
        for place in sys.path if self.form in ("file", "directory") else ():
            sent = os.path.join(place, self.package, name)
            if os.path.exists(sent):
                return sent
        return None
