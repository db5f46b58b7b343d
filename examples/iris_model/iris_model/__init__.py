"""An iris classifier behind the older MLModel interface."""
