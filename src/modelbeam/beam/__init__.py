"""Everything that imports Beam: the chain, the steps, and the transforms for other pipelines."""
