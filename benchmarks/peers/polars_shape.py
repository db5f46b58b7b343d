"""Polars over one of the shapes: the script that a user would write for it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import polars as pl
from iris_lr import COLUMNS, best_class, load
from shaped import NESTED, load_texts

LEAF = pl.Struct({"length": pl.Float64(), "width": pl.Float64()})
NESTED_SCHEMA = {"flower": pl.Struct(dict.fromkeys(NESTED, LEAF))}


def flowers(kept: list[str] | None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The species beside the kept columns; ``None`` keeps all."""
    model = load()
    names = pl.Series("species", model.classes_.astype(str))

    def predict(batch: pl.DataFrame) -> pl.DataFrame:
        species = names.gather(best_class(model, batch.select(COLUMNS).to_numpy()))
        if not kept:
            return species.to_frame() if kept == [] else batch.with_columns(species)
        return batch.select(kept).with_columns(species)

    return predict


def nested(batch: pl.DataFrame) -> pl.DataFrame:
    """The species of nested flowers."""
    model = load()
    flower = pl.col("flower").struct
    sides = [flower.field(leaf).struct.field(side) for leaf in NESTED for side in LEAF.to_schema()]
    rows = batch.select(side.alias(str(n)) for n, side in enumerate(sides)).to_numpy()
    names = pl.Series("species", model.classes_.astype(str))
    return names.gather(best_class(model, rows)).to_frame()


def texts(batch: pl.DataFrame) -> pl.DataFrame:
    """The labels of texts."""
    labels = load_texts().predict(batch["text"].to_list())
    return pl.Series("label", labels.astype(str)).to_frame()


def main(source: str, target: str, shape: str = "narrow") -> None:
    """Predict what is in ``source`` and write it to ``target``, in order."""
    if shape == "nested":
        scan, predict = pl.scan_ndjson(source, schema=NESTED_SCHEMA), nested
        schema = {"species": pl.String()}
    elif shape == "texts":
        scan, predict = pl.scan_ndjson(source, schema={"text": pl.String()}), texts
        schema = {"label": pl.String()}
    elif shape == "narrow":
        scan, predict = (
            pl.scan_ndjson(source, schema=dict.fromkeys(COLUMNS, pl.Float64)),
            flowers([]),
        )
        schema = {"species": pl.String()}
    else:
        wide = pl.scan_ndjson(source).collect_schema()
        kept = {"wide": [], "wide-id": ["id"], "wide-all": None}[shape]
        used = list(wide) if kept is None else [*kept, *COLUMNS]
        scan = pl.scan_ndjson(source, schema={name: wide[name] for name in used})
        predict = flowers(kept)
        shown = used if kept is None else kept
        schema = {**{name: wide[name] for name in shown}, "species": pl.String()}
    scan.map_batches(predict, schema=schema, streamable=True).sink_ndjson(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
