"""An iris classifier behind the `ml_base.MLModel` interface."""

__version__ = "0.1.0"
