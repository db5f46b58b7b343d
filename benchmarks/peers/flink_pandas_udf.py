"""PyFlink: JSON Lines read as a table of a given schema, and a pandas function over Arrow batches.

It runs on a cluster: ``flink_pandas_udf.py SOURCE TARGET host:port``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pyflink
from iris_lr import COLUMNS, best_class, load
from pyflink.common import Configuration
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.expressions import col
from pyflink.table.udf import udf

JARS = (
    "lib/flink-table-api-",
    "lib/flink-table-runtime-",
    "lib/flink-json-",
    "lib/flink-connector-",
)
BATCH = 10_000


@udf(result_type=DataTypes.STRING(), func_type="pandas")
def species(*measured: pd.Series) -> pd.Series:
    """Predict a batch; the model is loaded once a process."""
    model = load()
    best = best_class(model, pd.concat(measured, axis=1).to_numpy())
    return pd.Series(model.classes_[best])


def main(source: str, target: str, master: str) -> None:
    """Predict the flowers in ``source`` and write their species into the directory ``target``."""
    folder = Path(pyflink.__file__).parent
    jars = [jar for jar in folder.glob("*/*.jar") if str(jar.relative_to(folder)).startswith(JARS)]
    jars += folder.glob("opt/flink-python-*.jar")
    host, port = master.split(":")
    config = Configuration()
    for name, value in {
        "execution.target": "remote",
        "execution.runtime-mode": "BATCH",
        "rest.address": host,
        "rest.port": port,
        "jobmanager.rpc.address": host,
        "pipeline.jars": ";".join(f"file://{jar}" for jar in jars),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.arrow.batch.size": str(BATCH),
        "python.fn-execution.bundle.size": str(BATCH * 10),
    }.items():
        config.set_string(name, value)
    settings = EnvironmentSettings.new_instance().with_configuration(config).build()
    tables = TableEnvironment.create(settings)
    columns = ", ".join(f"{name} DOUBLE" for name in COLUMNS)
    tables.execute_sql(
        f"CREATE TABLE flowers ({columns}) "
        f"WITH ('connector' = 'filesystem', 'path' = 'file://{source}', 'format' = 'json')"
    )
    tables.execute_sql(
        f"CREATE TABLE species (species STRING) "
        f"WITH ('connector' = 'filesystem', 'path' = 'file://{target}', 'format' = 'json')"
    )
    predicted = tables.from_path("flowers").select(species(*map(col, COLUMNS)).alias("species"))
    predicted.execute_insert("species").wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
