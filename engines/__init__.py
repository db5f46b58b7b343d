"""Real engines for tests, benchmarks and trying out: Flink, Spark and Prism, on this machine."""
