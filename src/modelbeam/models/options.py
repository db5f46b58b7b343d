"""What a user may say of a model beside its target: flags that some kinds take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

FLAGS = {
    "features": "--features",
    "proba": "--proba",
    "trusted_types": "--trusted-type",
    "allow_version_mismatch": "--allow-version-mismatch",
}
"""The flag of each option."""


@dataclass(frozen=True, slots=True)
class Options:
    """Plain data that crosses process boundaries; what is not given has its default.

    Attributes:
        features: the model's columns in its order, where it does not know them.
        proba: whether class probabilities stand beside the class.
        trusted_types: types in a ``.skops`` file that may be built.
        allow_version_mismatch: whether a model of another version of its library is run.
    """

    features: tuple[str, ...] | None = None
    proba: bool = False
    trusted_types: tuple[str, ...] = ()
    allow_version_mismatch: bool = False

    def given(self) -> dict[str, Any]:
        """Those that are not the default."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}

    def over(self, other: Options) -> Options:
        """These, and of the other what is not given here."""
        return Options(**{**asdict(other), **self.given()})

    def refused(self, taken: Iterable[str]) -> str | None:
        """The flag of the first option that is given and is none of those that are taken."""
        return next((FLAGS[name] for name in self.given() if name not in set(taken)), None)


NONE = Options()
